#!/bin/sh
# load.sh HOST PORT: writes the rows into the warehouse, and shows what it has then.
exec perl -MIO::Socket -e '
  my $socket = IO::Socket::INET->new(PeerAddr => shift, PeerPort => shift) or die $@;
  open my $file, "<", "$ENV{STAGING}/rows.csv" or die $!;
  local $/;
  my $rows = <$file>;
  print $socket $rows;
  my $loaded = <$socket>;
  print "loaded: $loaded";
' "$1" "$2"
