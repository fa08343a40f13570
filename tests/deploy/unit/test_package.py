"""The Debian package: what is in it, and what installing, upgrading and removing it does."""

import gzip
import os
import re
import subprocess

from deb import REPOSITORY, run

UNIT = "usr/lib/systemd/system/kata-pulse.service"
WANTED = "etc/systemd/system/multi-user.target.wants/kata-pulse.service"

CONTENT = {
    "etc/default/kata-pulse",
    "usr/bin/kata-pulse",
    UNIT,
    "usr/share/bash-completion/completions/kata-pulse",
    "usr/share/doc/kata-pulse/README.md",
    "usr/share/doc/kata-pulse/changelog.Debian.gz",
    "usr/share/doc/kata-pulse/copyright",
    "usr/share/fish/vendor_completions.d/kata-pulse.fish",
    "usr/share/man/man8/kata-pulse.8.gz",
    "usr/share/zsh/vendor-completions/_kata-pulse",
}


def version():
    text = (REPOSITORY / "Cargo.toml").read_text()
    return re.search(r'^\[workspace\.package\]\nversion = "(.*)"$', text, re.M)[1]


def field(package, name):
    return run("dpkg-deb", "--field", package, name).strip()


def test_it_says_what_it_is(package):
    assert field(package, "Package") == "kata-pulse"
    assert field(package, "Version").rpartition("-")[0] == version()
    assert field(package, "Architecture") == run("dpkg", "--print-architecture").strip()
    assert re.search(r"\blibc6 \(>= [0-9.]+\)", field(package, "Depends")), "the C library is found by dpkg-shlibdeps"


def test_it_contains_what_it_should_and_nothing_else(package):
    lines = [line.split(maxsplit=5) for line in run("dpkg-deb", "--contents", package).splitlines()]
    files = {name.removeprefix("./"): (mode, owner) for mode, owner, _, _, _, name in lines if not name.endswith("/")}
    assert set(files) == CONTENT
    for name, (mode, owner) in files.items():
        assert owner in ("0/0", "root/root"), name
        assert mode == ("-rwxr-xr-x" if name == "usr/bin/kata-pulse" else "-rw-r--r--"), name


def test_lintian_finds_no_error(package):
    # The changelog is in the project's own form. A package of nobody's archive has no bug number to close.
    allowed = ["initial-upload-closes-no-bugs", "syntax-error-in-debian-changelog", "bogus-mail-host",
               "unstripped-binary-or-object"]
    done = subprocess.run(["lintian", "--no-cfg", "--allow-root", "--fail-on", "error", "--suppress-tags",
                           ",".join(allowed), str(package)], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout


def test_installing_starts_nothing_and_one_command_enables(root, package):
    root.dpkg("--install", package)
    assert root.state() == "install ok installed"
    assert not os.path.lexists(root.path(WANTED)), "an installation decides nothing"
    run("systemctl", f"--root={root.directory}", "enable", "kata-pulse")
    assert os.readlink(root.path(WANTED)).endswith("/systemd/system/kata-pulse.service")
    root.dpkg("--install", package)
    assert os.path.lexists(root.path(WANTED)), "an upgrade decides nothing either"


def test_settings_outlive_upgrade_and_removal_but_not_a_purge(root, package):
    root.dpkg("--install", package)
    settings = root.path("etc/default/kata-pulse")
    changed = settings.read_text() + 'RUST_LOG=debug\n'
    settings.write_text(changed)
    root.dpkg("--install", package)
    assert settings.read_text() == changed
    root.dpkg("--remove", "kata-pulse")
    assert root.state() == "deinstall ok config-files"
    assert settings.read_text() == changed
    assert not root.path("usr/bin/kata-pulse").exists() and not root.path(UNIT).exists()
    root.dpkg("--purge", "kata-pulse")
    assert not settings.exists()
    assert root.state() in ("", "unknown ok not-installed")


def test_the_binary_runs_and_has_the_packages_version(installed):
    assert run(installed.path("usr/bin/kata-pulse"), "--version").strip() == f"kata-pulse {version()}"


def test_the_manual_tells_every_option_and_file(installed):
    page = installed.path("usr/share/man/man8/kata-pulse.8.gz")
    text = gzip.decompress(page.read_bytes()).decode()
    for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "FILES", "SIGNALS", "EXIT STATUS",
                    "ENVIRONMENT", "SEE ALSO"]:
        assert re.search(rf'^\.SH "?{section}"?$', text, re.M), section
    source = page.with_suffix("")
    source.write_text(text)
    try:
        faults = run("mandoc", "-T", "lint", "-W", "error", source)
        rendered = run("sh", "-c", 'mandoc -T ascii "$1" | col -b', "sh", source)
    finally:
        source.unlink()
    assert faults == ""
    help_text = run(installed.path("usr/bin/kata-pulse"), "--help")
    options = set(re.findall(r"--[a-z-]+", help_text)) | set(re.findall(r"\[env: ([A-Z_]+)=", help_text))
    assert len(options) > 20
    for option in sorted(options):
        assert option in rendered.replace("\n", ""), option
    assert str(installed.path("etc/default/kata-pulse")).endswith("/etc/default/kata-pulse")
    assert "/etc/default/kata-pulse" in rendered


def test_bash_completes_options_commands_and_values(installed):
    script = installed.path("usr/share/bash-completion/completions/kata-pulse")

    def completions(*words):
        # As bash does it: the function that the script registers, called with the words so far.
        ask = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); ' \
              'function=$(complete -p kata-pulse | sed -E "s/.* -F ([^ ]+) .*/\\1/"); ' \
              '"$function" kata-pulse "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"; echo "${COMPREPLY[@]}"'
        return run("bash", "-c", ask, "bash", script, "kata-pulse", *words).split()

    assert completions("--listen") == ["--listen-address"]
    assert completions("check") == ["check-config"]
    assert completions("--scope", "") == ["all", "kata"]
    assert completions("collect", "--format", "") == ["prometheus", "openmetrics", "json"]


def test_the_other_shells_completions_name_every_option(installed):
    help_text = run(installed.path("usr/bin/kata-pulse"), "--help")
    options = set(re.findall(r"--([a-z-]+)", help_text))
    zsh = installed.path("usr/share/zsh/vendor-completions/_kata-pulse").read_text()
    fish = installed.path("usr/share/fish/vendor_completions.d/kata-pulse.fish").read_text()
    assert zsh.startswith("#compdef kata-pulse\n")
    for option in options:
        assert f"--{option}" in zsh, option
        assert re.search(rf" -l {option}\b", fish), option
