#!/bin/sh
# The container's command: /tmp/server.properties is copied in once the mapped port is known.
set -eu
while [ ! -s /tmp/server.properties ]; do sleep 0.1; done
bin=/opt/kafka/bin
"$bin/kafka-storage.sh" format --ignore-formatted \
    --cluster-id "${CLUSTER_ID:-5L6g3nShT-eMCtK--X86sw}" --config /tmp/server.properties
exec "$bin/kafka-server-start.sh" /tmp/server.properties
