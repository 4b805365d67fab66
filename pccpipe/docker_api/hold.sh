# The holder of a container's deadline: a process of the login, outside the container. It ends the container even if the
# command killed its own watchdog, and pccpipe is gone for good. Set before this text: pcc_socket, the engine's socket.
#
# ID.hold, beside the command's other files, has the holder's pid, start time and boot. A holder ends within half a minute
# of its container or that file, so it proves to the lease that the container runs.

pcc_find_way() { # sets pcc_way to a program that can ask the engine, or to nothing
  pcc_way=
  [ -r /proc/self/stat ] || return
  for pcc_way in curl perl python3 docker; do
    command -v $pcc_way >/dev/null 2>&1 && return
  done
  pcc_way=proc
  # Root needs no engine.
  [ -w /proc/1/oom_score_adj ] && return
  pcc_way=
}

pcc_call() { # METHOD PATH: the engine's answer
  case $pcc_way in
  curl) curl -s -i -m 30 --unix-socket "$pcc_socket" -X "$1" "http://docker$2" ;;
  perl)
    perl -MIO::Socket::UNIX -e '
      alarm 30;
      my $engine = IO::Socket::UNIX->new(Peer => $ARGV[0]) or exit 1;
      print $engine "$ARGV[1] $ARGV[2] HTTP/1.0\r\nHost: docker\r\nContent-Length: 0\r\n\r\n";
      $engine->flush;
      print while <$engine>' "$pcc_socket" "$1" "$2"
    ;;
  python3)
    python3 -I -c '
import socket, sys
engine = socket.socket(socket.AF_UNIX)
engine.settimeout(30)
engine.connect(sys.argv[1])
engine.sendall(f"{sys.argv[2]} {sys.argv[3]} HTTP/1.0\r\nHost: docker\r\nContent-Length: 0\r\n\r\n".encode())
while data := engine.recv(65536):
    sys.stdout.buffer.write(data)' "$pcc_socket" "$1" "$2"
    ;;
  esac | head -c 1000000
}

pcc_mounted() { # the processes that have the command's files mounted, as /proc/PID/...
  grep -lsF "$pcc_mount" /proc/[0-9]*/mountinfo
}

pcc_see() { # sets pcc_seen_now to yes (the container runs), no (it does not run, or is not there), or unknown
  pcc_seen_now=unknown
  case $pcc_way in
  docker)
    case $(docker -H "unix://$pcc_socket" inspect -f '{{.State.Running}}' "$pcc_name" 2>&1) in
    true) pcc_seen_now=yes ;;
    false | *[Nn]"o such"*) pcc_seen_now=no ;;
    esac
    ;;
  proc) if [ -n "$(pcc_mounted)" ]; then pcc_seen_now=yes; else pcc_seen_now=no; fi ;;
  *)
    case $(pcc_call GET "/containers/$pcc_name/json") in
    *'"Running":true'*) pcc_seen_now=yes ;;
    HTTP/1.?" 404 "* | *'"Running":false'*) pcc_seen_now=no ;;
    esac
    ;;
  esac
}

pcc_signal() { # SIGNAL, to the container
  case $pcc_way in
  docker) docker -H "unix://$pcc_socket" kill -s "$1" "$pcc_name" ;;
  proc)
    for pcc_path in $(pcc_mounted); do
      pcc_path=${pcc_path%/*}
      kill -s "$1" "${pcc_path#/proc/}"
    done
    ;;
  *) pcc_call POST "/containers/$pcc_name/kill?signal=$1" ;;
  esac
}

pcc_nap() { # SECONDS; ends the holder if its file is gone
  sleep "$1" &
  pcc_sleep=$!
  wait $pcc_sleep
  [ -e "$pcc_file" ] || exit
}

pcc_await() { # SECONDS: waits for the container's end. Looks after 2 s, and every half minute once the container was seen
  read -r pcc_up pcc_idle </proc/uptime
  pcc_from=${pcc_up%.*} pcc_look_at=$((${pcc_up%.*} + 2)) pcc_pause=2
  while
    read -r pcc_up pcc_idle </proc/uptime
    pcc_up=${pcc_up%.*}
    [ $((pcc_up - pcc_from)) -lt "$1" ]
  do
    if [ "$pcc_up" -ge "$pcc_look_at" ]; then
      pcc_see
      case $pcc_seen_now$pcc_seen in
      yes)
        # The limit counts from the container's start.
        pcc_seen=1 pcc_from=$pcc_up pcc_pause=30
        ;;
      yes1 | unknown1) ;;
      no1) exit ;;
      no | unknown)
        # The engine still makes it, or never did: then the next command's start, or the run's end, ends this process.
        pcc_pause=$((pcc_pause * 2))
        [ $pcc_pause -lt 600 ] || exit
        ;;
      esac
      pcc_look_at=$((pcc_up + pcc_pause))
    fi
    pcc_left=$(($1 - pcc_up + pcc_from))
    [ $pcc_left -lt 10 ] || pcc_left=10
    [ $pcc_left -lt $((pcc_look_at - pcc_up)) ] || pcc_left=$((pcc_look_at - pcc_up))
    pcc_nap $pcc_left
  done
}

pcc_hold() { # LIMIT GRACE
  trap '' HUP INT QUIT
  trap 'kill $pcc_sleep; exit' TERM
  cd /
  unset DOCKER_HOST DOCKER_CONTEXT
  pcc_seen=
  pcc_await "$1"
  # The watchdog inside comes first: it signals all processes, the engine only one.
  pcc_nap 2
  pcc_signal TERM
  pcc_await "$2"
  pcc_turn=0
  while [ $pcc_turn -lt 1000 ]; do
    pcc_turn=$((pcc_turn + 1))
    pcc_signal KILL
    pcc_nap 1
    pcc_see
    [ $pcc_seen_now = no ] && exit
    pcc_nap 4
  done
}

pcc_start() { # FILE NAME LIMIT GRACE: hold the deadline of the container NAME from now on
  pcc_file=$1 pcc_name=$2 pcc_mount=${1%/commands/*}
  pcc_mount=${pcc_mount##*/}/commands/${1##*/}
  pcc_mount="/${pcc_mount%.hold}.in /pcc/in "
  pcc_find_way
  [ -n "$pcc_way" ] || return 0
  pcc_hold "$3" "$4" </dev/null >/dev/null 2>&1 &
  read -r pcc_line <"/proc/$!/stat" && read -r pcc_boot </proc/sys/kernel/random/boot_id || return
  set -- ${pcc_line##*) }
  printf '%s %s %s\n' $! "${20}" "$pcc_boot" >"$pcc_file"
}

pcc_let_go() { # FILE...: end these holders
  for pcc_file; do
    [ -f "$pcc_file" ] && read -r pcc_pid pcc_began pcc_boot <"$pcc_file" && read -r pcc_line <"/proc/$pcc_pid/stat" || continue
    set -- ${pcc_line##*) }
    [ "${20}" = "$pcc_began" ] && kill "$pcc_pid"
  done 2>/dev/null
}
