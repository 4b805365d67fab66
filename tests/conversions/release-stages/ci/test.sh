# Fails once with the exit code of a busy machine, which the pipeline retries; then needs what the build made.
set -e
[ -e tried ] || { echo "no memory now, try again"; touch tried; exit 75; }
grep -q built dist/app.js
mkdir -p reports
echo '<testsuite name="unit"/>' >reports/unit.xml
