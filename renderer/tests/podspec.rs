//! `docs/podspec.md` is generated: from what each feature of the compiler says of its fields, and from the corpus of
//! `PodSpec`s that is run both ways.
//!
//! Without `FLOTTA_UPDATE_DOCS` this test compares, with it it writes.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use flotta_renderer::compile::{Becomes, fields};

const COMMAND: &str = "FLOTTA_UPDATE_DOCS=1 cargo test -p flotta-renderer --test podspec";

const HEAD: &str = "\
# What a PodSpec means on a device

A workload's PodSpec becomes Quadlet units: a `.container` file, or a `.pod` file and one `.container` file for each container.
It means what Kubernetes means by it, as far as a device can mean that; a test runs each of a corpus of PodSpecs
(`tests/podspecs`) by `podman kube play` and by our units on one device, and compares what runs.

`containers[]` stands for init containers too. Where a field has no fields of its own in the table, all of it is supported.

Some things are not seen from the tables:

- *Restarts.* systemd starts a container again, with growing pauses, and each time it is a new one. A change of a workload
  restarts the containers whose units changed.
- *emptyDir on disk* is a volume of Podman's, `WORKLOAD-VOLUME`. Kubernetes keeps one across restarts of containers, and
  removes it with the pod. On a device nothing tells the last stop from a restart, so it is always kept: what a container wrote
  survives its crashes, reboots and changes of the workload, and `podman volume rm` removes it. Like any volume of Podman's that
  is new, it begins with what the image has at its place.
- *emptyDir in memory* is gone when its pod stops. If one mount has all of it, it is that container's own, and gone when it
  restarts.
- *subPath* of a volume of Podman's: the folder is made where Podman keeps volumes unless it was told otherwise,
  `/var/lib/containers/storage/volumes`. If a device's storage was moved, make it by hand. A path below a hostPath is
  followed through symbolic links; who may write to the hostPath decides where it leads.
- *Probes* with a command are Podman's health checks; HTTP and TCP probes, and all readiness probes, are the agent's. A container
  that fails is stopped within its grace period, and `restartPolicy` says whether it starts again. `podman kube play` would
  restart it under systemd's feet. What waits for a startup probe (liveness, readiness) and the probe itself are made by one
  of the two: by the agent if it makes any of them.
- *The agent's probes* go to the container's own address, or to 127.0.0.1 with `hostNetwork`. They mean what kubelet means: any answer from 200 to
  399, redirects within the host, certificates not verified. While no agent runs, nobody asks, and nothing is stopped.
- *Readiness* stops nothing and keeps no request away. While a container is not ready, its workload and its device are reported
  as not healthy (`FLT0531`).
- *initialDelaySeconds* of a command: Podman asks at once, and does not count failures for so long.
";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Text in a cell of a table.
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
         ## Fields without effect\n\nThe same runs with them and without: a warning says so.\n\n| field | why |\n|---|---|\n{without}\n\
         ## Fields that are refused\n\nAn error, because something else would run than was asked for.\n\n| field | why |\n|---|---|\n{refused}"
    )
}

/// What the files of the corpus say at their heads: `# differs FACT: REASON`, `# play: REASON`, `# refused: TEXT`.
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
                // the right value, for the lab
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
fn podspec_md_says_what_the_compiler_does() {
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
