"""Variables that steps export, and a longer PATH, in a run on the VM, in a container there, and on this machine."""

from __future__ import annotations

from tests.e2e.control import Control

PIPELINE = """
    env: {PATH: "bin:$PATH"}
    containers: {box: {image: pcc-runner:latest, network: none}}
    steps:
      - {id: send, upload: workspace}
      - id: make
        on: vm
        run: |
          mkdir bin
          printf '#!/bin/sh\\ncat "$1"\\n' >bin/show
          chmod 755 bin/show
      - {id: home, run: 'echo "HERE=from here" >>"$PCC_ENV"'}
      - {id: vm, on: vm, run: 'echo "THERE=$HERE, the VM" >>"$PCC_ENV"'}
      - {id: box, container: box, run: 'echo "BOX=$THERE, a container" >>"$PCC_ENV"; echo "$BOX"'}
      - {id: second, container: box, run: 'echo "$BOX"'}
      - {id: last, on: vm, run: 'echo "$THERE; ${BOX-nothing of BOX}"'}
      - {id: local, run: 'echo "$HERE; ${THERE-nothing of THERE}"'}
      - {id: shown, on: vm, shell: show, run: a script}
      - {id: shown-in-a-box, container: box, run: "#!/usr/bin/env show\\nanother script"}
"""


def test_variables_go_to_places_with_as_much_isolation(control: Control) -> None:
    ran = control.run(PIPELINE)
    assert ran.code == 0, ran.stdout
    assert ran.log("second") == "from here, the VM, a container\n"
    assert ran.log("last") == "from here, the VM; nothing of BOX\n"
    assert ran.log("local") == "from here; nothing of THERE\n"
    assert "last: it does not get BOX, which box exported: that step ran with more isolation" in ran.stdout, ran.stdout
    assert ran.log("shown") == "a script"
    assert ran.log("shown-in-a-box") == "#!/usr/bin/env show\nanother script"
