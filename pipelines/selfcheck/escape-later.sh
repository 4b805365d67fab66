# A step leaves this on the VM: it forges another step's verdict as soon as it finds the place for it.
end=$(($(date +%s) + 120))
while [ "$(date +%s)" -lt "$end" ]; do
  for folder in "$ESCAPE_ROOT"/.system/run-state/*/commands/reader*.out "$ESCAPE_ROOT"/.system/run-io/*/reader*/out; do
    if [ -d "$folder" ]; then echo '{"forged": true}' >"$folder/reader.json"; fi
  done 2>/dev/null
  sleep 0.1
done
