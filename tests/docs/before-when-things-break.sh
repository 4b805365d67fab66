# Before the page's commands: a run whose process was killed, and one whose agent asks a question.
cat >test.yaml <<'END'
version: 1
name: test
steps: [{id: test, on: vm, run: "sleep 3; echo tested"}]
END
cat >asking.yaml <<'END'
version: 1
name: asking
steps:
  - id: build
    run: |
      [ -s "$PCC_IN/answers" ] && echo '{"escalation": ""}' >"$PCC_OUT/result.json" || cp "$PCC_IN/question" "$PCC_OUT/result.json"
    files:
      answers: {text: "${{ steps.build.answers.db_host }}"}
      question:
        text: >-
          {"escalation": "<<<NEED_HELP>>>\nwhat_i_need: the database\ninputs: [{key: db_host, label: Its host}]\n<<<END_HELP>>>"}
    result: {path: result.json}
END
pccpipe run test.yaml --run-id night-1 >/dev/null 2>&1 &
until grep -q command_started .system/runs/night-1/events.jsonl 2>/dev/null; do sleep 0.1; done
kill -9 "$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' .system/runs/night-1/events.jsonl | head -n 1)"
pccpipe run asking.yaml --run-id asked-1 || [ $? = 5 ]
