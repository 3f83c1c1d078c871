"""README's examples, run as written against a real model: the command, curl, and the openai client."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language):
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return found


def example(line):
    """A line of README that begins so."""
    assert f"\n{line}\n" in README
    return shlex.split(line)[1:]


def own_library(file, home):
    """A library with the model of this file, so that the server's state is the test's own too."""
    models = next(folder for folder in Path(file).parents if folder.name == "models")
    model = Path(file).relative_to(models).parts[0]

    def link(source, target):
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy(source, target)

    shutil.copytree(models / model, Path(home) / "models" / model, copy_function=link)


@pytest.mark.model
def test_serve_curl_and_the_openai_client(real, tmp_path, shell_env):
    own_library(real.served.source, shell_env["TENTH_HOME"])
    command = [sys.executable, "-m", "tenth", *example("tenth serve smollm2:135m"), "--port", "0"]
    process = subprocess.Popen(command, env=shell_env, stderr=subprocess.PIPE, text=True)
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"at http://127\.0\.0\.1:(\d+)", line):
                break
        assert found, lines
        drain = threading.Thread(target=process.stderr.read)
        drain.start()
        here = f"127.0.0.1:{found[1]}"
        curl = subprocess.run(["bash", "-c", block("bash").replace("127.0.0.1:8010", here)], capture_output=True,
                              text=True, check=True)
        assert json.loads(curl.stdout)["choices"][0]["message"]["content"]
        script = tmp_path / "example.py"
        script.write_text(block("py").replace("127.0.0.1:8010", here))
        assert len(subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout) > 10
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
    drain.join()
    process.stderr.close()
    assert process.returncode == 0
