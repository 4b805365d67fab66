set -e
mkdir -p dist
echo 1.2.3 >dist/version
echo built >dist/app.js
