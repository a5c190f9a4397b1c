//! Facts about a running container.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::device::Device;

/// The facts about one running container.
pub(super) type Facts = BTreeMap<&'static str, String>;

/// Prints, for each running container, its name, and what the kernel knows about its first process.
pub(super) const LOOK: &str = r#"
for id in $(podman ps --all --quiet); do
  set -- $(podman inspect --format '{{.Name}} {{.State.Pid}} {{.State.Status}}' "$id")
  echo "== $1 $3"
  pid=$2
  [ "$pid" -gt 0 ] || continue
  echo "-- args"; tr '\0\n' '\n\036' </proc/$pid/cmdline
  echo "-- env"; tr '\0\n' '\n\036' </proc/$pid/environ | sort
  echo "-- folder"; readlink /proc/$pid/cwd
  echo "-- user"; grep -E '^(Uid|Gid|Groups):' /proc/$pid/status
  echo "-- rights"; grep -E '^(CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp_filters):' /proc/$pid/status
  echo "-- namespaces"; for n in pid ipc net uts user; do [ "$(readlink /proc/$pid/ns/$n)" = "$(readlink /proc/1/ns/$n)" ] && echo "$n: host" || echo "$n: own"; done
  echo "-- hostname"; nsenter -t $pid -u hostname
  echo "-- hosts"; grep -E '^(10\.0\.0\.9|fd00::9)' /proc/$pid/root/etc/hosts | tr '\t' ' '
  echo "-- resolver"; grep -E '^(search|options|nameserver 10\.0\.0\.53)' /proc/$pid/root/etc/resolv.conf | grep -v '^search dns.podman$' # of the network of kube play
  echo "-- sysctl"; nsenter -t $pid -n cat /proc/sys/net/ipv4/ip_unprivileged_port_start
  echo "-- mounts"; cat /proc/$pid/mountinfo
  for d in /data /image /one /two /a /b /etc/app.conf '/data with space'; do
    [ -e "/proc/$pid/root$d" ] || continue
    echo "-- in $d"; find -L "/proc/$pid/root$d" -maxdepth 3 -printf '%P %y %m %U:%G %s\n' | sed 's/ d \([0-7]*\) \([0-9:]*\) .*/ d \1 \2/' | sort
  done
done
"#;

/// Collects the facts, by container.
pub(super) fn look(device: &Device) -> BTreeMap<String, Facts> {
    let inspected = device
        .run(&["sh", "-c", "podman inspect $(podman ps --all --quiet)"])
        .stdout;
    let inspected: Value = serde_json::from_slice(&inspected).unwrap_or_default();
    let containers: Vec<&Value> = inspected.as_array().into_iter().flatten().collect();
    let by_id: BTreeMap<&str, &Value> = containers
        .iter()
        .filter_map(|c| Some((c["Id"].as_str()?, *c)))
        .collect();
    let mut all: BTreeMap<String, Facts> = BTreeMap::new();
    for container in &containers {
        let network = container["HostConfig"]["NetworkMode"]
            .as_str()
            .unwrap_or_default();
        let outer = network
            .strip_prefix("container:")
            .and_then(|id| by_id.get(id))
            .copied()
            .unwrap_or(container);
        let name = container["Name"].as_str().expect("a name").to_owned();
        all.insert(name, told(container, outer));
    }
    let seen = device.exec(&["sh", "-c", LOOK]);
    for part in seen.split("== ").skip(1) {
        let (head, rest) = part.split_once('\n').unwrap_or((part, ""));
        let (name, state) = head.split_once(' ').expect("NAME STATE");
        let Some(facts) = all.get_mut(name) else {
            continue;
        };
        facts.insert("state", state.to_owned());
        let mut contents = String::new();
        for section in rest.split("-- ").skip(1) {
            let (title, text) = section.split_once('\n').unwrap_or((section, ""));
            let text = text.trim_end().to_owned();
            match title {
                "args" | "env" | "folder" | "user" | "rights" | "namespaces" | "hostname"
                | "hosts" | "resolver" | "sysctl" => {
                    let fact = FACTS.iter().find(|fact| **fact == title).expect("a fact");
                    facts.insert(fact, text);
                }
                "mounts" => {
                    facts.insert("mounts", mounts(&text));
                }
                inside => {
                    let _ = writeln!(contents, "{inside}\n{text}");
                }
            }
        }
        facts.insert("contents", contents);
    }
    all
}

pub(super) const FACTS: [&str; 10] = [
    "args",
    "env",
    "folder",
    "user",
    "rights",
    "namespaces",
    "hostname",
    "hosts",
    "resolver",
    "sysctl",
];

/// Facts from Podman about a container; the ports are those of its pod.
pub(super) fn told(container: &Value, outer: &Value) -> Facts {
    let (config, host) = (&container["Config"], &container["HostConfig"]);
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let period = number(&host["CpuPeriod"]).max(1);
    let cpus = match number(&host["NanoCpus"]) {
        0 => number(&host["CpuQuota"]) * 1000 / period,
        nano => nano / 1_000_000,
    };
    let health = &config["Healthcheck"];
    let user_annotations: BTreeMap<&String, &Value> = config["Annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| !key.starts_with("io.") && !key.starts_with("org.opencontainers."))
        .collect();
    Facts::from([
        (
            "image",
            config["Image"].as_str().unwrap_or_default().to_owned(),
        ),
        ("ports", outer["HostConfig"]["PortBindings"].to_string()),
        (
            "memory",
            format!(
                "{} at most, {} kept",
                host["Memory"], host["MemoryReservation"]
            ),
        ),
        (
            "cpu",
            format!("{cpus} m at most, {} shares", host["CpuShares"]),
        ),
        (
            "health",
            if health.is_null() {
                String::new()
            } else {
                format!("{health} {}", config["HealthcheckOnFailureAction"])
            },
        ),
        ("startup", config["StartupHealthCheck"].to_string()),
        (
            "stop",
            format!("{} after {} s", config["StopSignal"], config["StopTimeout"]),
        ),
        (
            "terminal",
            format!("{} {}", config["Tty"], config["OpenStdin"]),
        ),
        (
            "root",
            format!(
                "read-only {} privileged {}",
                host["ReadonlyRootfs"], host["Privileged"]
            ),
        ),
        ("labels of security", host["SecurityOpt"].to_string()),
        ("devices", host["Devices"].to_string()),
        ("annotations", format!("{user_annotations:?}")),
    ])
}

/// The mounts that not every container has: path, file system, options, and propagation.
pub(super) fn mounts(mountinfo: &str) -> String {
    const USUAL: [&str; 8] = [
        "/proc",
        "/sys",
        "/dev/",
        "/etc/resolv.conf",
        "/etc/hosts",
        "/etc/hostname",
        "/run/.containerenv",
        "/run/secrets",
    ];
    let mut out: Vec<String> = Vec::new();
    for line in mountinfo.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let end = fields
            .iter()
            .position(|field| *field == "-")
            .expect("a separator");
        let place = fields[4];
        if place == "/"
            || place == "/dev"
            || USUAL.iter().any(|usual| place.starts_with(usual))
                && !place.starts_with("/dev/zero2")
        {
            continue;
        }
        let read = fields[5].split(',').next().unwrap_or_default();
        let others: Vec<&str> = fields[5]
            .split(',')
            .filter(|word| word.starts_with("no"))
            .filter(|word| *word != "noatime")
            .collect();
        let through: Vec<&str> = fields[6..end]
            .iter()
            .map(|word| word.split(':').next().unwrap_or_default())
            .collect();
        let tmpfs = fields[end + 1] == "tmpfs";
        // `kube play` mounts empty folders there in every container, as if its root were read-only.
        if tmpfs && ["/run", "/tmp", "/var/tmp"].contains(&place) {
            continue;
        }
        let size = fields[end + 3]
            .split(',')
            .find(|word| tmpfs && word.starts_with("size="))
            .unwrap_or_default();
        out.push(format!(
            "{place} {} {read} {others:?} {through:?} {size}",
            if tmpfs { "tmpfs" } else { "disk" }
        ));
    }
    out.sort();
    out.join("\n")
}
