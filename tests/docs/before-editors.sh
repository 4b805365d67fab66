mkdir pipelines
printf 'version: 1\nname: tests\nsteps:\n  - {id: test, run: npm test}\n' >pipelines/tests.yaml
