#!/bin/sh
# Makes what docker-compose.yml reads, once, and says what it made: secrets, a certificate, keys.
#   sh deploy/init.sh [HOST]          HOST is the name boards will know the server by
# What is there stays. deploy/run is for this machine alone: it is in no image and no repository.
set -eu
cd "$(dirname "$0")"
host=${1:-localhost}
umask 077
command -v openssl >/dev/null || { echo "deploy/init.sh: openssl is missing; apt-get install openssl" >&2; exit 2; }
mkdir -p run/tls

secret() { openssl rand -hex 24; }

if [ ! -f run/server.env ]; then
    database=$(secret) store=$(secret) metrics=$(secret)
    printf 'POSTGRES_USER=kedge\nPOSTGRES_DB=kedge\nPOSTGRES_PASSWORD=%s\n' "$database" > run/database.env
    printf 'ROOT_ACCESS_KEY_ID=kedge\nROOT_SECRET_ACCESS_KEY=%s\n' "$store" > run/store.env
    cat > run/server.env <<END
KEDGE_SERVER_DATABASE=postgresql://kedge:$database@database:5432/kedge
AWS_ACCESS_KEY_ID=kedge
AWS_SECRET_ACCESS_KEY=$store
KEDGE_SERVER_OPERATOR_TOKEN=$(secret)
KEDGE_SERVER_METRICS_TOKEN=$metrics
END
    printf '%s' "$metrics" > run/metrics.token
    sed -n 's/^KEDGE_SERVER_OPERATOR_TOKEN=//p' run/server.env > run/operator.token
    echo "deploy/run/*.env: secrets of the services; deploy/run/operator.token: the first administrator's"
fi

if [ ! -f run/tls/server.pem ]; then
    # An authority of one's own, for a plant's network. A certificate of a public one goes in its place.
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=Kedge" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout run/ca.key -out run/ca.pem 2>/dev/null
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$host" \
        -keyout run/tls/server.key -out run/tls/server.csr 2>/dev/null
    printf 'subjectAltName=DNS:%s,DNS:localhost,DNS:proxy,IP:127.0.0.1\n' "$host" > run/tls/names
    openssl x509 -req -in run/tls/server.csr -CA run/ca.pem -CAkey run/ca.key -CAcreateserial -days 825 \
        -extfile run/tls/names -out run/tls/server.pem 2>/dev/null
    rm run/tls/server.csr run/tls/names
    chmod 644 run/ca.pem run/tls/server.pem
    echo "deploy/run/tls: a certificate for $host, of the authority in deploy/run/ca.pem"
fi

if [ ! -d run/keys ]; then
    if command -v kedge >/dev/null; then
        kedge keys init --out run/keys >/dev/null
    else
        echo "deploy/init.sh: put keys/online and keys/repository of 'kedge keys init' into deploy/run/keys" >&2
        exit 2
    fi
    echo "deploy/run/keys: the fleet's keys; move deploy/run/keys/offline off this machine"
fi

# Each service runs as a user of its own and reads what is its own.
give() { chown -R "$@" 2>/dev/null || { echo "deploy/init.sh: run it as root, or with sudo" >&2; exit 2; }; }
chmod 755 run run/tls run/keys
# Who called sudo is who starts the services and publishes.
[ -z "${SUDO_UID:-}" ] || give "$SUDO_UID" run/*.env run/operator.token run/keys/offline
give 10001 run/keys/online run/keys/repository
give 101 run/tls
give 65534 run/metrics.token
