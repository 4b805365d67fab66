#!/bin/sh
# Serves the folder `source` over HTTP, on a port of this machine. Perl is on any Debian.
exec perl -MIO::Socket -e '
  my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => shift, Listen => 9, ReuseAddr => 1) or die $@;
  while (my $client = $server->accept) {
    my ($name) = <$client> =~ m{^GET /(\w*)};
    my $body = "";
    if (open my $file, "<", "source/$name.csv") { local $/; $body = <$file>; }
    print $client "HTTP/1.0 200 OK\r\n\r\n$body";
    close $client;
  }
' "$1"
