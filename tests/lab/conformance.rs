//! The meaning of a `PodSpec`: each case of a corpus is run by `podman kube play` and by our units, on one device, and the
//! containers are compared. A difference must be named in the case's file with its reason, or the test fails.

mod facts;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use flotta_bundle::manifest::Wanted;
use flotta_renderer::{Batch, Input, Options, render};

use crate::device::{Device, wait};

use facts::{Facts, look};

/// How many pods run at once.
const BATCH: usize = 24;

/// A `PodSpec` of the corpus: `tests/podspecs/NAME.yaml`.
struct Case {
    name: String,
    /// `# refused: TEXT`: the renderer refuses it with this text.
    refused: Option<String>,
    /// `# play: TEXT`: `podman kube play` cannot run it.
    unplayed: bool,
    /// `# neither: TEXT`: our units cannot run it either, which is intended.
    unrun: bool,
    /// `# differs FACT: REASON`.
    differs: BTreeSet<String>,
    /// `# is FACT: TEXT`: what Kubernetes makes of it, and our units must.
    is: Vec<(String, String)>,
    /// `# is not FACT: TEXT`: what it does not make of it.
    is_not: Vec<(String, String)>,
    /// `metadata:` and `spec:`, as Kubernetes has them, and what follows after `---`.
    body: String,
    others: String,
}

impl Case {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("a case");
        let header = |word: &str| -> Vec<&str> {
            let lines = text.lines().take_while(|line| line.starts_with("# "));
            lines
                .filter_map(|line| line[2..].strip_prefix(word))
                .collect()
        };
        let fact = |line: &str| {
            let (fact, text) = line.split_once(':').expect("FACT: TEXT");
            (fact.trim().to_owned(), text.trim().to_owned())
        };
        let differs = header("differs ").into_iter().map(|line| fact(line).0);
        let is_not: Vec<_> = header("is not ").into_iter().map(fact).collect();
        let mut is = header("is ");
        is.retain(|line| !line.starts_with("not "));
        let is = is.into_iter().map(fact).collect();
        let differs = differs.collect();
        let refused = header("refused: ").first().map(|text| (*text).to_owned());
        let unrun = !header("neither: ").is_empty();
        let unplayed = unrun || !header("play: ").is_empty();
        let (body, others) = text.split_once("---\n").unwrap_or((&text, ""));
        Self {
            name: path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned(),
            refused,
            unplayed,
            unrun,
            differs,
            is,
            is_not,
            body: body.to_owned(),
            others: others.to_owned(),
        }
    }

    fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/podspecs");
        let files = std::fs::read_dir(folder).expect("the corpus");
        let mut all: Vec<_> = files
            .map(|file| Self::read(&file.expect("a file").path()))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The metadata with the name, and the rest.
    fn named(&self) -> (String, &str) {
        let start = self.body.find("spec:\n").expect("a spec");
        let (metadata, spec) = self.body.split_at(start);
        let own = metadata
            .split_once("metadata:\n")
            .map_or("", |(_, own)| own);
        (format!("metadata:\n  name: {}\n{own}", self.name), spec)
    }

    /// The pod with the grace period that a cluster would add: `kube play` has another default.
    fn pod(&self) -> String {
        let (metadata, spec) = self.named();
        let grace = if spec.contains("terminationGracePeriodSeconds:") {
            ""
        } else {
            "  terminationGracePeriodSeconds: 30\n"
        };
        format!(
            "apiVersion: v1\nkind: Pod\n{metadata}{spec}{grace}---\n{}",
            self.others
        )
    }

    fn workload(&self) -> String {
        let (metadata, spec) = self.named();
        let mut inner = String::new();
        for line in spec.lines() {
            let _ = writeln!(inner, "    {line}");
        }
        format!(
            "apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeDevice\nmetadata: {{name: conformance}}\n---\n\
             apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeWorkload\n{metadata}spec:\n  type: pod\n  \
             device: conformance\n  pod:\n{inner}---\n{}",
            self.others
        )
    }

    /// Renders it to files and units, or returns the renderer's error.
    fn render(&self) -> Result<Rendered, String> {
        let name = format!("{}.yaml", self.name);
        let input = Input::from_iter([Batch::of_file(&name, self.workload().as_bytes())]);
        let rendered = render(&input, &[], &Options::default());
        let errors: Vec<_> = rendered
            .findings
            .iter()
            .filter(|finding| finding.severity == flotta_renderer::Severity::Error)
            .map(|finding| format!("{} {}: {}", finding.code.id, finding.place, finding.message))
            .collect();
        if !errors.is_empty() {
            return Err(errors.join("\n"));
        }
        let found = &rendered.devices[&"conformance".parse().expect("a device name")];
        let manifest = flotta_bundle::manifest::Manifest::parse(&rendered.blobs[&found.manifest])
            .expect("a manifest");
        let blob = |digest| rendered.blobs[digest].clone();
        Ok(Rendered {
            files: manifest
                .files
                .iter()
                .map(|file| (file.path.to_string(), file.mode.bits(), blob(&file.digest)))
                .collect(),
            units: manifest
                .units
                .iter()
                .filter(|unit| unit.wanted == Wanted::Active)
                .map(|unit| unit.name.clone())
                .collect(),
        })
    }
}

struct Rendered {
    files: Vec<(String, u32, Vec<u8>)>,
    units: Vec<String>,
}

/// Makes the image that all cases run: busybox, which runs until it is stopped.
const IMAGE: &str = r#"
set -e
mkdir -p /root/tools/bin /root/tools/tmp /srv/host/sub '/srv/host with space'
echo one >/srv/host/file; echo two >/srv/host/sub/file
cp /usr/bin/busybox /root/tools/bin/
for applet in sh sleep true cat echo test; do ln -sf busybox /root/tools/bin/$applet; done
mkdir -p /root/tools/image; echo image >/root/tools/image/there; chown 7:7 /root/tools/image
mkdir -p /root/tools/etc; printf 'root:x:0:0::/:/bin/sh\n' >/root/tools/etc/passwd; printf 'root:x:0:\n' >/root/tools/etc/group
# The lab has no cgroup controllers: the runtime is not given the limits that Podman was.
mv /usr/bin/runc /usr/bin/runc.real
cat >/usr/bin/runc <<'END'
#!/bin/sh
next=; bundle=
for word; do [ "$next" = yes ] && bundle=$word; next=; case $word in --bundle|-b) next=yes;; esac; done
[ -z "$bundle" ] || sed -i -E 's/"(memory|cpu)":\{[^}]*\}/"\1":{}/g' "$bundle/config.json"
exec /usr/bin/runc.real "$@"
END
chmod 755 /usr/bin/runc
tar -C /root/tools -c . | podman import --quiet --change 'CMD ["/bin/sleep","9999"]' --change 'ENV FROM_IMAGE=yes' - localhost/tools:1
printf 'containers:1000000:1000000\n' | tee -a /etc/subuid >>/etc/subgid
podman volume create claim-d >/dev/null
mkdir -p "$(podman volume inspect --format '{{.Mountpoint}}' claim-d)/worlds"
"#;

const CLEAN: &str = "podman pod rm --all --force --time 0 >/dev/null; podman rm --all --force --time 0 >/dev/null; \
    podman volume ls --quiet | grep -v '^claim-d$' | xargs --no-run-if-empty podman volume rm >/dev/null; true";

/// Runs a batch with `podman kube play`. Returns the facts about running containers, and the errors.
fn play(device: &Device, cases: &[&Case]) -> (BTreeMap<String, Facts>, BTreeMap<String, String>) {
    let mut failed = BTreeMap::new();
    for case in cases {
        let path = format!("/root/kube/{}.yaml", case.name);
        device.write(&path, &case.pod());
        // As a service, as our units are: systemd's own system call filter comes on top of Podman's there.
        let mut command = vec!["systemd-run", "--quiet", "--wait", "--pipe"];
        command.extend(["--property=KillMode=process", "podman", "kube", "play"]);
        command.extend(["--quiet", path.as_str()]);
        let output = device.run(&command);
        if !output.status.success() {
            failed.insert(case.name.clone(), crate::device::text(&output.stderr));
        }
    }
    let seen = look(device);
    device.run(&["sh", "-c", CLEAN]);
    (seen, failed)
}

/// Runs a command on all units, and returns its output.
fn on_all(device: &Device, command: &[&str], units: &[&str]) -> String {
    crate::device::text(&device.run(&[command, units].concat()).stdout)
}

/// Runs a batch as our units, and returns the facts about running containers.
fn units(device: &Device, rendered: &[(&Case, Rendered)]) -> BTreeMap<String, Facts> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = "/etc/containers/systemd";
    device.run(&["find", folder, "-type", "f", "-delete"]);
    for (_, one) in rendered {
        for (path, mode, content) in &one.files {
            let on_disk = device.path(path);
            std::fs::create_dir_all(on_disk.parent().expect("a folder")).expect("folders");
            std::fs::write(&on_disk, content).expect("a file");
            std::fs::set_permissions(&on_disk, std::fs::Permissions::from_mode(*mode))
                .expect("a mode");
        }
    }
    device.exec(&["systemctl", "daemon-reload"]);
    let units: Vec<&str> = rendered
        .iter()
        .flat_map(|(_, one)| one.units.iter().map(String::as_str))
        .collect();
    on_all(device, &["systemctl", "start", "--no-block"], &units);
    wait("all units are up or failed", || {
        let states = on_all(
            device,
            &["systemctl", "show", "--property=Job", "--value"],
            &units,
        );
        let busy = states.lines().filter(|line| !line.is_empty()).count();
        if busy == 0 {
            Ok(())
        } else {
            Err(format!("{busy} are not"))
        }
    });
    let seen = look(device);
    on_all(device, &["systemctl", "kill", "--signal=KILL"], &units);
    device.run(&[
        "sh",
        "-c",
        "rm -rf /etc/containers/systemd/*; systemctl daemon-reload",
    ]);
    device.run(&["sh", "-c", CLEAN]);
    device.run(&["systemctl", "reset-failed"]);
    seen
}

#[test]
fn a_podspec_means_what_kube_play_means() {
    let cases = Case::all();
    let device = Device::create("conformance");
    device.boot();
    // Podman's resolver for the network of `kube play` does not start without one.
    device.write("/etc/resolv.conf", "nameserver 192.0.2.53\n");
    device.exec(&["sh", "-c", IMAGE]);
    let mut wrong = String::new();
    let (mut agree, mut decided, mut refused) = (0, 0, 0);
    for batch in cases.chunks(BATCH) {
        let mut rendered = Vec::new();
        for case in batch {
            match (case.render(), &case.refused) {
                (Ok(one), None) => rendered.push((case, one)),
                (Err(said), Some(text)) if said.contains(text.as_str()) => refused += 1,
                (Ok(_), Some(_)) => {
                    let _ = writeln!(wrong, "## {}: is not refused", case.name);
                }
                (Err(said), _) => {
                    let _ = writeln!(wrong, "## {}: is refused: {said}", case.name);
                }
            }
        }
        let played: Vec<&Case> = rendered.iter().map(|(case, _)| *case).collect();
        let (theirs, failed) = play(&device, &played);
        let ours = units(&device, &rendered);
        for (case, _) in &rendered {
            if let Some(said) = failed.get(&case.name) {
                if !case.unplayed {
                    let _ = writeln!(wrong, "## {}: kube play: {said}", case.name);
                } else if runs(case, &ours) == case.unrun {
                    let not = if case.unrun { "" } else { " not" };
                    let _ = writeln!(wrong, "## {}: ours does{not} run", case.name);
                } else {
                    decided += 1;
                }
                continue;
            }
            wrong.push_str(&meanings(case, &ours));
            let found = compare(case, &theirs, &ours);
            let expected: BTreeSet<String> = case.differs.clone();
            let got: BTreeSet<String> = found.keys().cloned().collect();
            if got != expected {
                let _ = writeln!(
                    wrong,
                    "## {}: differs in {got:?}, expected {expected:?}",
                    case.name
                );
                for (fact, text) in found.iter().filter(|(fact, _)| !expected.contains(*fact)) {
                    let _ = writeln!(wrong, "{fact}:\n{text}");
                }
            } else if got.is_empty() {
                agree += 1;
            } else {
                decided += 1;
            }
        }
    }
    println!(
        "{} cases: {agree} agree, {decided} differ by decision, {refused} are refused",
        cases.len()
    );
    assert!(wrong.is_empty(), "{wrong}");
}

/// Whether a container of a case is running.
fn runs(case: &Case, ours: &BTreeMap<String, Facts>) -> bool {
    let names = [case.name.clone(), format!("{}-main", case.name)];
    let states = names.iter().filter_map(|name| ours.get(name)?.get("state"));
    states.into_iter().any(|state| state == "running")
}

/// What of a case's meaning in Kubernetes is missing in our containers.
fn meanings(case: &Case, ours: &BTreeMap<String, Facts>) -> String {
    let facts = [case.name.clone(), format!("{}-main", case.name)].map(|name| ours.get(&name));
    let own = |fact: &str| {
        let mut facts = facts.iter().flatten();
        facts
            .find_map(|facts| facts.get(fact))
            .map_or("", String::as_str)
    };
    let mut wrong = String::new();
    for (fact, text) in &case.is {
        let own = own(fact);
        if !own.contains(text.as_str()) {
            let _ = writeln!(wrong, "## {}: {fact} is not {text:?}:\n{own}", case.name);
        }
    }
    for (fact, text) in &case.is_not {
        let own = own(fact);
        if own.is_empty() || own.contains(text.as_str()) {
            let _ = writeln!(wrong, "## {}: {fact} is {text:?}:\n{own}", case.name);
        }
    }
    wrong
}

/// The facts in which the containers of a case differ.
fn compare(
    case: &Case,
    theirs: &BTreeMap<String, Facts>,
    ours: &BTreeMap<String, Facts>,
) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let prefix = format!("{}-", case.name);
    let known =
        ["main", "one", "two", "first", "pod", "infra"].map(|name| format!("{prefix}{name}"));
    let mut compared = 0;
    for name in known {
        let Some(their) = theirs.get(&name) else {
            continue;
        };
        compared += 1;
        let Some(our) = ours.get(&name).or_else(|| ours.get(&case.name)) else {
            found.insert(
                "container".to_owned(),
                format!(
                    "{name} is not there; there are {:?}",
                    ours.keys()
                        .filter(|key| key.starts_with(&case.name))
                        .collect::<Vec<_>>()
                ),
            );
            continue;
        };
        let keys: BTreeSet<_> = their.keys().chain(our.keys()).collect();
        for key in keys {
            let (a, b) = (
                their.get(key).map_or("", String::as_str),
                our.get(key).map_or("", String::as_str),
            );
            if a != b {
                found.insert(
                    (*key).to_owned(),
                    format!("  {name}\n  kube play: {a}\n  ours:      {b}"),
                );
            }
        }
    }
    if compared == 0 {
        found.insert("container".to_owned(), "kube play made none".to_owned());
    }
    found
}
