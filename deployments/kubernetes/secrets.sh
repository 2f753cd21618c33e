#!/bin/sh
# Makes the secrets of these manifests in the cluster, each with values of its own, once: what is there already stays.
set -eu
namespace=${1:-headwater}
random() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
secret() { kubectl -n "$namespace" get secret "$1" >/dev/null 2>&1 || kubectl -n "$namespace" create secret generic "$@"; }

kubectl get namespace "$namespace" >/dev/null 2>&1 || kubectl create namespace "$namespace"
postgres=$(random) redis=$(random) objects=$(random) prefect=headwater:$(random) ray=$(random)
kubectl -n "$namespace" get secret headwater-server >/dev/null 2>&1 && { echo "the secrets are there already"; exit 0; }
secret headwater-ray --from-literal=auth_token="$ray"
secret headwater-postgres --from-literal=POSTGRES_USER=headwater --from-literal=POSTGRES_PASSWORD="$postgres" \
    --from-literal=POSTGRES_DB=prefect
secret headwater-redis --from-literal=REDIS_PASSWORD="$redis"
secret headwater-objects --from-literal=MINIO_ROOT_USER=lake --from-literal=MINIO_ROOT_PASSWORD="$objects"
secret headwater-lake --from-literal=AWS_ACCESS_KEY_ID=lake --from-literal=AWS_SECRET_ACCESS_KEY="$objects" \
    --from-literal=HEADWATER_CATALOG="postgresql://headwater:$postgres@postgres:5432/catalog"
secret headwater-client --from-literal=PREFECT_API_AUTH_STRING="$prefect"
secret headwater-server --from-literal=PREFECT_SERVER_API_AUTH_STRING="$prefect" \
    --from-literal=PREFECT_SERVER_DATABASE_CONNECTION_URL="postgresql+asyncpg://headwater:$postgres@postgres:5432/prefect" \
    --from-literal=PREFECT_REDIS_MESSAGING_URL="redis://:$redis@redis:6379/0" \
    --from-literal=PREFECT_SERVER_DOCKET_URL="redis://:$redis@redis:6379/1"
