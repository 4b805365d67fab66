# Files that the page's programs load.
cat >test.yaml <<'END'
version: 1
name: test
steps: [{id: test, on: vm, run: sh test.sh}]
END
printf 'version: 1\nname: broken\nsteps: [{id: a, rum: x}]\n' >broken.yaml
