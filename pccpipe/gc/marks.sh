# What lies in the lease's folder and is no lease. lease.sh comes before it. Of any number of things, each in one pass of find:
# no name, text, link or number of them makes this longer.

pcc_wrong_marks() { # their names, each ending with a NUL
  {
    pcc_all -printf '%f\0'
    pcc_all -printf '%f\0'
    # A lease of this login's, as lease.sh takes it, is named three times; what is no lease twice. Then those stay that
    # are not named three times.
    pcc_all -type l ! -lname '*[[:cntrl:]]*' -name '[1-9]*' ! -name '*[!0-9]*' \
      \( -user "$(id -u)" -o -user "$(stat -c %u "$pcc_lease/.")" -o -user 0 \) -printf '%f %l\0' |
      grep -zaE "$pcc_lease_form" | sed -z 's/ .*//'
  } | sort -z | uniq -zc | sed -zn 's/^ *2 //p'
}

pcc_marks() { # [remove]: their number; the first of them, each ending with a NUL
  # A link would lead to what is not pccpipe's.
  [ ! -L "${pcc_lease%/*}" ] || return 0
  if [ -L "$pcc_lease" ] || { [ -e "$pcc_lease" ] && [ ! -d "$pcc_lease" ]; }; then
    printf '1\0.\0'
    [ -z "${1-}" ] || rm -f -- "$pcc_lease"
    return
  fi
  [ -d "$pcc_lease" ] || return 0
  cd -P -- "$pcc_lease" || exit
  printf '%s\0' "$(pcc_wrong_marks | tr -dc '\0' | wc -c)"
  pcc_wrong_marks | head -z -n 20
  [ -z "${1-}" ] || pcc_wrong_marks | sed -z 's,^,./,' | xargs -0r rm -rf --
}
