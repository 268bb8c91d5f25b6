#!/bin/sh
# Open MPI's way into another host, in place of ssh: HOST COMMAND... in the network namespace that is called as the host.
host=$1
shift
exec ip netns exec "$host" unshare --uts sh -c "hostname $host; $*"
