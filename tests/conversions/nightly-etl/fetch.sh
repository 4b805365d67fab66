#!/bin/sh
# fetch.sh PORT NAME: prints what the source has under that name.
exec perl -MIO::Socket -e '
  my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => shift) or exit 7;
  print $socket "GET /" . shift() . " HTTP/1.0\r\n\r\n";
  local $/;
  my ($head, $body) = split /\r\n\r\n/, <$socket>, 2;
  print $body;
' "$1" "$2"
