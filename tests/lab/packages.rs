//! The Debian packages: every device of the lab is installed from the agent's; here both are installed, upgraded, removed and
//! purged on running machines.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::device::{Device, text, wait};
use crate::site::{Site, device, page};

/// The packages of one version.
pub(crate) struct Packages {
    pub(crate) agent: PathBuf,
    pub(crate) server: PathBuf,
}

impl Packages {
    /// The packages of the programs that were built with this test.
    pub(crate) fn built() -> &'static Self {
        static BUILT: LazyLock<Packages> = LazyLock::new(|| Packages::make(None));
        &BUILT
    }

    /// The same programs as a later version.
    fn later() -> &'static Self {
        static LATER: LazyLock<Packages> = LazyLock::new(|| Packages::make(Some("99.0")));
        &LATER
    }

    fn make(version: Option<&str>) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let programs = Path::new(env!("CARGO_BIN_EXE_flotta")).parent();
        let target = programs.and_then(Path::parent).expect("target/debug");
        let profile = if cfg!(debug_assertions) {
            "dev"
        } else {
            "release"
        };
        let out = target.join("tmp/packages").join(version.unwrap_or("built"));
        let mut package = Command::new(root.join("ci/package"));
        package.args(["--built", profile, "--out"]).arg(&out);
        if let Some(version) = version {
            package.args(["--version", version]);
        }
        let output = package
            .env("CARGO_TARGET_DIR", target)
            .output()
            .expect("ci/package starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        Self {
            agent: out.join("flotta-agent-amd64.deb"),
            server: out.join("flotta-amd64.deb"),
        }
    }
}

const FILE: &str = "/root/package.deb";

/// Installs a package on a running machine, and returns the output.
fn install(machine: &Device, package: &Path) -> String {
    machine.copy(package, FILE);
    machine.exec(&["dpkg", "--install", FILE])
}

fn show(machine: &Device, unit: &str, property: &str) -> String {
    machine.exec(&["systemctl", "show", "--value", "-p", property, unit])
}

/// Checks the manual page and completions of a program.
fn has_pages(machine: &Device, program: &str, page: &str) {
    for path in [
        format!("/usr/share/man/man1/{program}.1.gz"),
        format!("/usr/share/man/man1/{page}.1.gz"),
        format!("/usr/share/bash-completion/completions/{program}"),
        format!("/usr/share/zsh/vendor-completions/_{program}"),
        format!("/usr/share/fish/vendor_completions.d/{program}.fish"),
        format!("/usr/share/doc/{program}/copyright"),
    ] {
        let length = machine
            .path(&path)
            .metadata()
            .map_or(0, |found| found.len());
        assert!(length > 0, "{path} is not there, or empty");
    }
}

#[test]
fn an_agent_is_installed_upgraded_removed_and_purged_and_what_runs_goes_on() {
    let site = Site::start(&[
        ("device.yaml", &device("packed")),
        ("web.yaml", &page("web", 8080, "first page")),
        ("till.yaml", &page("till", 8081, "till page")),
    ]);
    let unit = "flotta-agent.service";
    let packed = Device::create("packed");
    packed.boot();

    // Installed on a running machine: it waits for a join file, without a failed unit.
    install(&packed, &Packages::built().agent);
    has_pages(&packed, "flotta-agent", "flotta-agent-enrol");
    assert_eq!(show(&packed, unit, "UnitFileState"), "enabled");
    assert_eq!(show(&packed, unit, "ActiveState"), "inactive");
    packed.write("/root/join", &site.token(&["packed"]));
    let said = packed.exec(&["flotta-agent", "enrol", "/root/join"]);
    assert!(said.contains("started flotta-agent.service"), "{said}");
    packed.shows(8080, "first page");
    site.in_sync("packed");
    let (containers, agent) = (packed.containers(), show(&packed, unit, "MainPID"));
    assert_eq!(containers.len(), 2);

    // Upgraded: a new agent, the same containers, and it follows.
    let later = Packages::later();
    install(&packed, &later.agent);
    wait("the new agent runs", || {
        let now = show(&packed, unit, "MainPID");
        let new = now != agent && show(&packed, unit, "ActiveState") == "active";
        new.then_some(()).ok_or(now)
    });
    assert_eq!(packed.containers(), containers);
    site.commit(
        "another page",
        &[("web.yaml", &page("web", 8080, "second page"))],
    );
    packed.shows(8080, "second page");
    site.in_sync("packed");
    let containers = packed.containers();

    // Removed: workloads keep running, also after a reboot, and the identity stays.
    let said = packed.exec(&["dpkg", "--remove", "flotta-agent"]);
    assert!(said.contains("goes on running"), "{said}");
    assert_ne!(show(&packed, unit, "ActiveState"), "active");
    assert!(!packed.path("/usr/bin/flotta-agent").exists());
    assert_eq!(packed.containers(), containers);
    packed.reboot();
    packed.shows(8080, "second page");
    packed.shows(8081, "till page");
    let identity = packed.path("/var/lib/flotta-agent/identity");
    assert!(identity.exists());

    // Installed again: the same device, without manual work, with the latest commit.
    site.commit(
        "a third page",
        &[("web.yaml", &page("web", 8080, "third page"))],
    );
    install(&packed, &later.agent);
    packed.shows(8080, "third page");
    site.in_sync("packed");
    let containers = packed.containers();

    // Purged: the identity is gone, and still nothing stops.
    let said = packed.exec(&["dpkg", "--purge", "flotta-agent"]);
    assert!(said.contains("podman ps"), "{said}");
    assert!(!packed.path("/var/lib/flotta-agent").exists());
    assert_eq!(packed.containers(), containers);
    packed.shows(8080, "third page");
    let state = packed.run(&["systemctl", "is-enabled", unit]);
    assert_ne!(text(&state.stdout), "enabled");
}

#[test]
fn an_agent_is_not_installed_where_there_is_no_podman() {
    let bare = Device::server("bare");
    bare.boot();
    bare.copy(&Packages::built().agent, FILE);
    let output = bare.run(&["dpkg", "--install", FILE]);
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("depends on podman"), "{said}");
}

const SERVER: &str = "flotta.service";
const SETTINGS: &str = "/etc/flotta/server.env";
/// A repository on the server's machine that belongs to somebody else.
const REPOSITORY: &str = "/srv/fleet";

/// A machine with the server's package, and a repository.
struct ServerMachine(Device);

impl ServerMachine {
    fn open(name: &str) -> Self {
        let machine = Device::server(name);
        machine.boot();
        install(&machine, &Packages::built().server);
        let machine = Self(machine);
        let init = [
            "git",
            "init",
            "--quiet",
            "--initial-branch=main",
            REPOSITORY,
        ];
        machine.0.exec(&init);
        machine.commit("device.yaml", &device("branch"));
        machine.commit("web.yaml", &page("web", 8080, "first page"));
        machine
    }

    fn commit(&self, name: &str, content: &str) {
        self.0.write(&format!("{REPOSITORY}/{name}"), content);
        let user = ["-c", "user.name=lab", "-c", "user.email=lab@example.com"];
        let git = |arguments: &[&str]| {
            let git = ["git", "-C", REPOSITORY];
            self.0.exec(&[&git, &user[..], arguments].concat())
        };
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", name]);
    }

    fn start(&self) {
        let settings = format!(
            "FLOTTA_SOURCE={REPOSITORY}\nFLOTTA_NAME={}\nFLOTTA_FLEET=machine\nFLOTTA_POLL=1s\n",
            self.0.address()
        );
        self.0.write(SETTINGS, &settings);
        self.0.exec(&["systemctl", "enable", "--now", SERVER]);
    }

    /// Waits until `flotta check` prints this, and returns its exit code.
    #[track_caller]
    fn checks(&self, words: &str) -> Option<i32> {
        wait(&format!("the check says {words:?}"), || {
            let output = self.0.run(&["flotta", "check"]);
            let said = text(&output.stdout) + &text(&output.stderr);
            let says = said.contains(words);
            says.then_some(output.status.code()).ok_or(said)
        })
    }

    /// Waits until the device has applied this release, and all of it runs.
    fn ready(&self, device: &str, release: u64) {
        for what in [format!("release={release}"), "condition=Ready".to_owned()] {
            let wait = ["flotta", "wait", "device", device, "--for", &what];
            self.0.exec(&wait);
        }
    }

    fn keys(&self) -> String {
        self.0.exec(&["flotta", "keys", "show"])
    }

    fn stat(&self, format: &str, path: &str) -> String {
        self.0.exec(&["stat", "-c", format, path])
    }
}

#[test]
fn a_server_is_installed_and_configured_and_closed_to_others() {
    let machine = ServerMachine::open("closed");
    let ServerMachine(server) = &machine;
    has_pages(server, "flotta", "flotta-serve");
    // It has a user of its own, and is not started before a source is configured.
    assert!(server.exec(&["id", "flotta"]).contains("gid="));
    assert_eq!(show(server, SERVER, "UnitFileState"), "disabled");
    assert_eq!(show(server, SERVER, "ActiveState"), "inactive");
    assert_eq!(machine.stat("%U %a", SETTINGS), "root 600");
    machine.start();

    // Git does not read another user's repository: this is reported with help, and the repository is not read as a folder.
    assert_ne!(machine.checks("safe.directory"), Some(0));
    let trust = ["git", "config", "--system", "--add", "safe.directory"];
    server.exec(&[&trust[..], &[REPOSITORY]].concat());
    machine.checks("is in force");

    // Its files are closed to others; only its group may use the admin socket.
    let process = format!("/proc/{}", show(server, SERVER, "MainPID"));
    assert_eq!(machine.stat("%U", &process), "flotta");
    assert_eq!(
        machine.stat("%U %G %a", "/var/lib/flotta"),
        "flotta flotta 700"
    );
    let socket = "/run/flotta/admin.sock";
    assert_eq!(machine.stat("%U %G %a", socket), "flotta flotta 660");
    server.exec(&["useradd", "--groups", "flotta", "alice"]);
    server.exec(&["useradd", "mallory"]);
    let ask = |user| server.run(&["runuser", "-u", user, "--", "flotta", "get", "devices"]);
    let (alice, mallory) = (ask("alice"), ask("mallory"));
    assert!(alice.status.success(), "{}", text(&alice.stderr));
    assert_eq!(mallory.status.code(), Some(2));
    assert!(
        text(&mallory.stderr).contains("FLT0508"),
        "{}",
        text(&mallory.stderr)
    );

    // A stopped server is critical.
    server.exec(&["systemctl", "stop", SERVER]);
    assert_eq!(machine.checks("FLT0508"), Some(2));
}

#[test]
fn a_server_is_upgraded_removed_and_purged_and_its_devices_go_on() {
    let machine = ServerMachine::open("machine");
    let ServerMachine(server) = &machine;
    let trust = ["git", "config", "--system", "--add", "safe.directory"];
    server.exec(&[&trust[..], &[REPOSITORY]].concat());
    machine.start();
    machine.checks("is in force");
    let branch = Site::install("branch");
    let join = server.exec(&["flotta", "token", "create", "branch"]);
    branch.write("/etc/flotta/join", &join);
    branch.boot();
    branch.shows(8080, "first page");
    machine.ready("branch", 1);
    let containers = branch.containers();

    // Upgraded: the same fleet, and its device follows the next commit.
    let (keys, before) = (machine.keys(), show(server, SERVER, "MainPID"));
    install(server, &Packages::later().server);
    wait("the new server runs", || {
        let now = show(server, SERVER, "MainPID");
        let new = now != before && show(server, SERVER, "ActiveState") == "active";
        new.then_some(()).ok_or(now)
    });
    assert_eq!(machine.keys(), keys);
    assert!(
        server
            .exec(&["cat", SETTINGS])
            .contains("FLOTTA_FLEET=machine")
    );
    assert_eq!(branch.containers(), containers);
    machine.commit("web.yaml", &page("web", 8080, "second page"));
    branch.shows(8080, "second page");
    machine.ready("branch", 2);
    let containers = branch.containers();
    assert_eq!(containers.len(), 1);

    // Removed and purged: its devices keep running, and no package removes a fleet's keys.
    server.exec(&["dpkg", "--remove", "flotta"]);
    assert_ne!(show(server, SERVER, "ActiveState"), "active");
    assert!(server.path(SETTINGS).exists());
    let said = server.exec(&["dpkg", "--purge", "flotta"]);
    assert!(said.contains("it holds the fleet's keys"), "{said}");
    assert!(!server.path(SETTINGS).exists());
    assert!(server.path("/var/lib/flotta/keys").exists());
    assert_eq!(branch.containers(), containers);
    branch.shows(8080, "second page");

    // Installed again it is the same fleet.
    install(server, &Packages::built().server);
    machine.start();
    assert_eq!(machine.keys(), keys);
    machine.commit("web.yaml", &page("web", 8080, "third page"));
    branch.shows(8080, "third page");
}
