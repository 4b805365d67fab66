# Finds files in the lease's folder that are not leases, in one pass of find. lease.sh comes before it. No name, text,
# link or number of files makes it take longer.

pcc_stray_files() { # their names, each ending with a NUL
  {
    # Each file is named twice, and a lease of this login a third time. Those named twice are not leases.
    pcc_all -printf '%f\0'
    pcc_all -printf '%f\0'
    pcc_all -type l ! -lname '*[[:cntrl:]]*' -name '[1-9]*' ! -name '*[!0-9]*' \
      \( -user "$(id -u)" -o -user "$(stat -c %u "$pcc_lease/.")" -o -user 0 \) -printf '%f %l\0' |
      grep -zaE "$pcc_lease_form" | sed -z 's/ .*//'
  } | sort -z | uniq -zc | sed -zn 's/^ *2 //p'
}

pcc_find_stray_files() { # [remove]: their number; the first of them, each ending with a NUL
  # A link could lead out of pccpipe's folder.
  [ ! -L "${pcc_lease%/*}" ] || return 0
  if [ -L "$pcc_lease" ] || { [ -e "$pcc_lease" ] && [ ! -d "$pcc_lease" ]; }; then
    printf '1\0.\0'
    [ -z "${1-}" ] || rm -f -- "$pcc_lease"
    return
  fi
  [ -d "$pcc_lease" ] || return 0
  cd -P -- "$pcc_lease" || exit
  printf '%s\0' "$(pcc_stray_files | tr -dc '\0' | wc -c)"
  pcc_stray_files | head -z -n 20
  [ -z "${1-}" ] || pcc_stray_files | sed -z 's,^,./,' | xargs -0r rm -rf --
}
