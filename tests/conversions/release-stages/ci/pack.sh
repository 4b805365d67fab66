set -e
cp dist/app.js "dist/app-$1.tgz"
