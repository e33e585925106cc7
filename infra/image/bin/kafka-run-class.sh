#!/bin/sh
# Runs a class of Kafka with the variables that the official script of this name takes.
exec "${JAVA_HOME}/bin/java" \
    ${KAFKA_HEAP_OPTS:--Xmx512m} \
    ${KAFKA_JVM_PERFORMANCE_OPTS:--XX:+UseSerialGC} \
    ${KAFKA_LOG4J_OPTS:-} \
    ${KAFKA_OPTS:-} \
    --enable-native-access=ALL-UNNAMED \
    -cp '/opt/kafka/libs/*' "$@"
