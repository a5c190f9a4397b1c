//! Generates `docs/podspec.md` from the fields that the compiler's features describe, and from the corpus of `PodSpec`s, which
//! the lab runs both ways.
//!
//! With `FLOTTA_UPDATE_DOCS` the test writes the page; without it, the test compares.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use flotta_renderer::compile::{Becomes, fields};

const COMMAND: &str = "FLOTTA_UPDATE_DOCS=1 cargo test -p flotta-renderer --test podspec";

const HEAD: &str = "\
# What a PodSpec means on a device

A workload's PodSpec becomes Quadlet units: a `.container` file, or a `.pod` file and one `.container` file for each container.
They mean what the PodSpec means in Kubernetes, as far as a device can do that: a test runs each PodSpec of a corpus
(`tests/podspecs`) with `podman kube play` and with our units on one device, and compares what runs.

`containers[]` includes init containers. If the table lists no fields below a field, all of it is supported.

Some things cannot be seen in the tables:

- *Restarts.* systemd starts a container again, with growing pauses, and each time it is a new one. A change of a workload
  restarts the containers whose units changed.
- *emptyDir on disk* is a Podman volume, `WORKLOAD-VOLUME`. Kubernetes keeps an emptyDir across restarts of containers, and
  removes it with the pod. A device cannot distinguish the last stop from a restart, so it always keeps the volume: what a
  container wrote survives its crashes, reboots and changes of the workload, and `podman volume rm` removes it. As in Kubernetes,
  a new emptyDir is empty, whatever the image has at its path, and every user may write to it; with `fsGroup` it belongs to that
  group.
- *emptyDir in memory* is gone when its pod stops. If only one mount uses it, and all of it, it belongs to that container, and
  is gone when the container restarts.
- *subPath* of a Podman volume: the folder is created where Podman keeps volumes by default,
  `/var/lib/containers/storage/volumes`. If a device's storage was moved, create it by hand. A path below a hostPath is
  followed through symbolic links; who may write to the hostPath decides where it leads.
- *Probes.* A liveness probe with a command is a Podman health check, unless the container has a startup probe. The agent makes
  all other probes. A container that fails is stopped within its grace period, and `restartPolicy` says whether it starts again;
  `podman kube play` would restart it without systemd's knowledge.
- *The agent's probes* go to the container's own address, or to 127.0.0.1 with `hostNetwork`. They mean what they mean to
  kubelet: any response from 200 to 399 is a success, redirects within the host are followed, certificates are not verified. While
  the agent does not run, no probe is made, and nothing is stopped.
- *Readiness* stops nothing and blocks no request. While a container is not ready, its workload and its device are reported
  as not healthy (`FLT0531`).
- *initialDelaySeconds* of a Podman health check: Podman runs the check at once, and does not count failures during that time.
";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Escapes text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn tables() -> String {
    let mut supported = String::new();
    let mut without = String::new();
    let mut refused = String::new();
    for field in fields() {
        let (table, text) = match field.becomes {
            Becomes::Supported(text) => (&mut supported, text),
            Becomes::NoEffect(text) => (&mut without, text),
            Becomes::Refused(text) => (&mut refused, text),
        };
        let _ = writeln!(table, "| `{}` | {} |", field.path, cell(text));
    }
    format!(
        "\n## Supported fields\n\n| field | becomes |\n|---|---|\n{supported}\n\
         ## Fields without effect\n\nThe same runs with and without them; a warning says so.\n\n| field | why |\n|---|---|\n{without}\n\
         ## Fields that are refused\n\nAn error, because what would run is not what the PodSpec asks for.\n\n| field | why |\n|---|---|\n{refused}"
    )
}

/// Returns the table of what the corpus' files say in their first lines: `# differs FACT: REASON`, `# play: REASON`,
/// `# refused: TEXT`.
fn corpus() -> String {
    let folder = fs::read_dir(root().join("tests/podspecs")).expect("the corpus");
    let mut paths: Vec<_> = folder.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    let mut rows = String::new();
    for path in &paths {
        let name = path.file_stem().expect("a name").to_string_lossy();
        let text = fs::read_to_string(path).expect("a case");
        for line in text.lines().map_while(|line| line.strip_prefix("# ")) {
            let (what, why) = line.split_once(": ").expect("WHAT: WHY");
            let what = match what.split_once(' ') {
                Some(("differs", fact)) => fact,
                // the expected value, which only the lab needs
                Some(("is", _)) => continue,
                None if what == "play" => "`kube play` does not run it",
                None if what == "neither" => "neither runs it",
                None if what == "refused" => "refused",
                _ => "",
            };
            assert_ne!(what, "", "{name}: {line}");
            let _ = writeln!(
                rows,
                "| [{name}](../tests/podspecs/{name}.yaml) | {what} | {} |",
                cell(why)
            );
        }
    }
    format!(
        "\n## Where it differs from `podman kube play`\n\n{} PodSpecs are compared; these differ, on purpose.\n\n\
         | PodSpec | differs in | why |\n|---|---|---|\n{rows}",
        paths.len()
    )
}

#[test]
fn podspec_md_is_up_to_date() {
    let should = format!(
        "{HEAD}{}{}\nThis page is generated: `{COMMAND}`.\n",
        tables(),
        corpus()
    );
    let path = root().join("docs/podspec.md");
    let is = fs::read_to_string(&path).unwrap_or_default();
    if is != should && std::env::var_os("FLOTTA_UPDATE_DOCS").is_some() {
        fs::write(&path, should).expect("a document that can be written");
        return;
    }
    assert_eq!(
        is, should,
        "docs/podspec.md is out of date. To regenerate it: {COMMAND}"
    );
}
