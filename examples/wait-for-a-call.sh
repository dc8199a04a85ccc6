#!/bin/sh
# Places a call, waits for its end, and branches on the outcome, using only curl and jq.
#
#   PARLEY_URL=http://localhost:3000 PARLEY_KEY=… sh examples/wait-for-a-call.sh +15550100 [idempotency key]
#
# Exit codes: 0 the call was completed, 1 the call or a request failed, 2 wrong usage, 3 nobody could be reached.
set -eu

url=${PARLEY_URL:-http://localhost:3000}
key=${PARLEY_KEY:-}
to=${1:-}
if [ -z "$key" ] || [ -z "$to" ]; then
  echo "usage: PARLEY_KEY=<a key with the role caller> wait-for-a-call.sh +15550100 [idempotency key]" >&2
  exit 2
fi
# Repeating the command with the same key does not place a second call.
idempotency_key=${2:-call-$(date +%s)-$$}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Sends a request and prints the body of the 2xx response. Retries temporary failures (no response, 429, 5xx) after the server's
# Retry-After; any other error response ends the script.
ask() {
  tries=0
  while :; do
    # 70 s is longer than the longest long poll. The key goes through standard input, because arguments are visible to all users.
    status=$(printf 'header = "Authorization: Bearer %s"\n' "$key" |
      curl --silent --config - --max-time 70 --dump-header "$folder/headers" --output "$folder/body" --write-out '%{http_code}' "$@") || status=000
    case $status in
      2??) cat "$folder/body"; return ;;
      000 | 429 | 5??) ;;
      *)
        echo "rejected with $status: $(jq --raw-output '.detail? // .title? // empty' "$folder/body" 2>/dev/null || true)" >&2
        exit 1
        ;;
    esac
    tries=$((tries + 1))
    if [ "$tries" -ge 10 ]; then
      [ "$status" = 000 ] && last='no response' || last="status $status"
      echo "gave up after $tries attempts; the last one got $last" >&2
      exit 1
    fi
    pause=2
    if [ "$status" != 000 ]; then
      named=$(tr -d '\r' <"$folder/headers" | sed -n 's/^[Rr]etry-[Aa]fter: *\([0-9][0-9]*\)$/\1/p' | tail -n 1)
      pause=${named:-$pause}
    fi
    sleep "$pause"
  done
}

call=$(ask --request POST "$url/api/v1/vapi/calls" \
  --header 'Content-Type: application/json' --header "Idempotency-Key: $idempotency_key" \
  --data "$(jq --null-input --arg to "$to" '{to: $to}')")
id=$(printf '%s' "$call" | jq --raw-output .callId)
echo "call $id" >&2

# Each request stays open until the call is done, or for 50 s.
while [ "$(printf '%s' "$call" | jq .done)" != true ]; do
  call=$(ask "$url/api/v1/vapi/calls/$id?wait=50")
done

outcome=$(printf '%s' "$call" | jq --raw-output .outcome)
case $outcome in
  completed)
    printf '%s' "$call" | jq --raw-output '"completed after \(.durationSeconds) s: \(.summary)"'
    ;;
  no_answer | busy | voicemail)
    echo "nobody could be reached ($outcome)"
    exit 3
    ;;
  *)
    printf '%s' "$call" | jq --raw-output '"ended with \(.outcome): \(.error // .endedReason // "reason unknown")"'
    exit 1
    ;;
esac
