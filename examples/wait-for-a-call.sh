#!/bin/sh
# Places a call, waits for its end, and branches on the outcome, with curl and jq alone.
#
#   PARLEY_URL=http://localhost:3000 PARLEY_KEY=… sh examples/wait-for-a-call.sh +15550100 [idempotency key]
#
# Ends with 0 when they talked, 3 when nobody could be reached, 1 when the call or the request failed, 2 when used wrongly.
set -eu

url=${PARLEY_URL:-http://localhost:3000}
key=${PARLEY_KEY:-}
to=${1:-}
if [ -z "$key" ] || [ -z "$to" ]; then
  echo "usage: PARLEY_KEY=<one of API_KEYS> wait-for-a-call.sh +15550100 [idempotency key]" >&2
  exit 2
fi
# Repeat the command with the same key, and nobody is called twice.
idempotency_key=${2:-call-$(date +%s)-$$}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Asks until the answer is 2xx, and prints it. Trouble that passes (no answer, 429, 5xx) is tried again after the time that the
# server names; any other refusal ends the script.
ask() {
  tries=0
  while :; do
    # 70 s: longer than the longest wait. The key goes through standard input: arguments can be seen by everybody.
    status=$(printf 'header = "Authorization: Bearer %s"\n' "$key" |
      curl --silent --config - --max-time 70 --dump-header "$folder/headers" --output "$folder/body" --write-out '%{http_code}' "$@") || status=000
    case $status in
      2??) cat "$folder/body"; return ;;
      000 | 429 | 5??) ;;
      *)
        echo "refused with $status: $(jq --raw-output '.detail? // .title? // empty' "$folder/body" 2>/dev/null || true)" >&2
        exit 1
        ;;
    esac
    tries=$((tries + 1))
    if [ "$tries" -ge 10 ]; then
      [ "$status" = 000 ] && last='no answer' || last="the answer $status"
      echo "gave up after $tries attempts; the last one had $last" >&2
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

# Each question stays open until the call is over, or for 50 s.
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
    printf '%s' "$call" | jq --raw-output '"ended with \(.outcome): \(.error // .endedReason // "nobody knows why")"'
    exit 1
    ;;
esac
