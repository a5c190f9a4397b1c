//! One script of calls to systemd, Quadlet, Podman and the file system. The unit tests run it on the fake and the lab runs it
//! on a device; both must give the transcript in `script.txt`, so the fake behaves as the real thing does.

#[path = "script/links.rs"]
mod links;
#[path = "script/template.rs"]
mod template;
#[path = "script/timer.rs"]
mod timer;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use flotta_bundle::manifest::{File, FileKind, Mode};
use flotta_bundle::{DevicePath, Digest};

use super::{BackendError, Files, Found, Podman, Systemd, UnitState, Verb};

/// An image that serves until it is stopped, one that exits with a given status, and one that no registry has.
pub(crate) const HELLO: &str = "registry.example/hello@sha256:ef1282d29dea80613629dcb925fb16a1a28e41b11abaf24c1d9ed6bbc5368791";
pub(crate) const EXITS: &str = "registry.example/exits@sha256:9c3547e04b2cfee17b23690223b2265402a4811e8ab558a88356b534066deafe";
const GONE: &str =
    "registry.example/gone@sha256:00000000000000000000000000000000000000000000000000000000000000aa";

/// The transcript of the script on a device.
pub(crate) const TRANSCRIPT: &str = include_str!("script.txt").trim_ascii();

/// What happens to a machine without its agent's doing.
pub(crate) trait Environment {
    /// The owner installs a unit of their own.
    fn host_unit(&mut self, name: &str);
    /// Creates a container with a workload's label that no unit belongs to.
    fn stray(&mut self, workload: &str);
    /// Somebody changes the mode of a file.
    fn chmod(&mut self, path: &str);
    /// Somebody removes an image.
    fn lose(&mut self, image: &str);
    /// Which other units start this one, by its links below `/etc/systemd/system`: `multi-user.target.wants`.
    fn links(&mut self, name: &str) -> Vec<String>;
    /// The names of all containers, running or not.
    fn containers(&mut self) -> Vec<String>;
}

/// The machine, and the transcript so far.
pub(crate) struct Script<S, P, F, T> {
    pub(crate) systemd: S,
    pub(crate) podman: P,
    pub(crate) files: F,
    pub(crate) stage: T,
    pub(crate) said: String,
    /// The last run that was seen of each unit.
    pub(crate) runs: BTreeMap<String, String>,
}

fn path(text: &str) -> DevicePath {
    text.parse().expect("a path that a release may use")
}

fn quadlet(name: &str) -> String {
    format!("/etc/containers/systemd/{name}")
}

fn file(at: &str, content: &str) -> File {
    File {
        path: path(at),
        mode: Mode::new(0o644),
        owner: "root".to_owned(),
        group: "root".to_owned(),
        digest: Digest::of(content.as_bytes()),
        size: content.len() as u64,
        kind: FileKind::Quadlet,
        belongs_to: None,
    }
}

/// A Quadlet `.container` file.
fn container(name: &str, image: &str, exec: &str, more: &str) -> String {
    format!(
        "[Container]\nImage={image}\nContainerName={name}\nLabel=flotta.workload={name}\nExec={exec}\nStopTimeout=10\n{more}\n"
    )
}

/// How often a state is polled, at most a tenth of a second apart, before it is taken as it is.
const LOOKS: usize = 600;
const SERVES: &str = "8099 /index.txt";

impl<S: Systemd, P: Podman, F: Files, T: Environment> Script<S, P, F, T> {
    pub(crate) async fn all(mut self) -> String {
        self.absent().await;
        self.images().await;
        self.places();
        self.one().await;
        self.several().await;
        self.vanished().await;
        self.exits().await;
        self.missing_images().await;
        self.network().await;
        self.pod().await;
        self.timer().await;
        self.links().await;
        self.template().await;
        self.not_ours().await;
        self.said.trim().to_owned()
    }

    fn say(&mut self, line: impl AsRef<str>) {
        let _ = writeln!(self.said, "{}", line.as_ref());
    }

    fn done<R>(&mut self, what: &str, done: Result<R, BackendError>) {
        let how = done.map_or_else(|error| error.to_string(), |_| "done".to_owned());
        self.say(format!("{what}: {how}"));
    }

    /// Notes the state of a unit: which run it is only while it runs, and its failure only while systemd has its definition.
    async fn unit(&mut self, name: &str) -> UnitState {
        let state = self.systemd.unit(name).await.expect("an answer");
        let UnitState {
            load,
            active,
            sub,
            result,
            ..
        } = &state;
        let mut line = format!("{name} is {load} {active}/{sub}");
        if state.is_loaded() {
            let (exit, restart) = (state.exit_status, &state.restart);
            let _ = write!(line, ", {result} {exit}, Restart={restart}");
            let _ = write!(line, ", restarted {}", state.restarts);
            let _ = write!(line, ", {} of {:?}", state.fragment, state.source);
        }
        if state.is_up() {
            let run = state.invocation.clone();
            let last = self.runs.insert(name.to_owned(), run.clone());
            let same = if last == Some(run) { "same" } else { "new" };
            let _ = write!(line, ", a {same} run");
        }
        self.say(line);
        state
    }

    /// Waits until a unit is in this state, and notes it.
    async fn until(&mut self, name: &str, is: impl Fn(&UnitState) -> bool) {
        for _ in 0..LOOKS {
            let state = self.systemd.unit(name).await.expect("an answer");
            if is(&state) {
                break;
            }
            self.pause().await;
        }
        self.unit(name).await;
    }

    /// Waits until the journal has a line of systemd: it is written some time after the unit has changed.
    async fn until_journal(&mut self, name: &str, what: &str) {
        let line = format!("{name}: {what}");
        for _ in 0..LOOKS {
            if self.systemd.journal(name).await.contains(&line) {
                return self.say(format!("its journal: {line}"));
            }
            self.pause().await;
        }
        self.say("its journal does not say so");
    }

    async fn pause(&mut self) {
        self.systemd.look_again(Some(Duration::from_millis(100)));
        self.systemd.changed().await;
    }

    async fn jobs(&mut self, jobs: &[(Verb, &str)]) {
        let what: Vec<_> = jobs
            .iter()
            .map(|(verb, name)| format!("{verb:?} {name}"))
            .collect();
        let jobs: Vec<_> = jobs
            .iter()
            .map(|(verb, name)| (*verb, (*name).to_owned()))
            .collect();
        let failed = self.systemd.jobs(&jobs, Duration::from_secs(60)).await;
        let failed: Vec<_> = failed
            .iter()
            .map(|(name, error)| format!("{name}: {error}"))
            .collect();
        let how = if failed.is_empty() {
            "done".to_owned()
        } else {
            failed.join(", ")
        };
        self.say(format!("{}: {how}", what.join(", ")));
    }

    fn put(&mut self, name: &str, content: &str) {
        let at = quadlet(name);
        let done = self.files.write(&file(&at, content), content.as_bytes());
        self.done(&format!("write {name}"), done);
    }

    fn drop(&mut self, name: &str) {
        let done = self.files.remove(&path(&quadlet(name)));
        self.done(&format!("remove {name}"), done);
    }

    async fn reload(&mut self) {
        let done = self.systemd.reload().await;
        self.done("reload", done);
    }

    fn containers(&mut self) {
        let mut all = self.stage.containers();
        all.retain(|name| !name.ends_with("-infra"));
        all.sort();
        let all = all.join(" ");
        let all = if all.is_empty() { "none" } else { &all };
        self.say(format!("containers: {all}"));
    }

    async fn absent(&mut self) {
        self.say("\n# what is not there");
        self.unit("web.service").await;
        for verb in [Verb::Start, Verb::Stop, Verb::Restart] {
            self.jobs(&[(verb, "web.service")]).await;
        }
        let done = self.systemd.reset_failed("web.service").await;
        self.done("reset web.service", done);
        let lines = self.systemd.journal("web.service").await;
        self.say(format!("journal of web.service: {} lines", lines.len()));
        let done = self.podman.sweep("web").await;
        self.done("sweep web", done);
    }

    async fn images(&mut self) {
        self.say("\n# images");
        for _ in 0..2 {
            let has = self.podman.has_image(HELLO).await;
            self.say(format!("has hello: {has:?}"));
            let done = self.podman.pull(HELLO).await;
            self.done("pull hello", done);
        }
        let done = self.podman.pull(EXITS).await;
        self.done("pull exits", done);
        // Podman's own words, which nothing depends on
        let error = self
            .podman
            .pull(GONE)
            .await
            .expect_err("no registry has it");
        let why = error.to_string().contains("manifest unknown");
        self.say(format!("pull gone: manifest unknown: {why}"));
    }

    fn places(&mut self) {
        self.say("\n# files");
        let folder = "/etc/flotta/workloads/web/site";
        let (page, below) = (format!("{folder}/page"), format!("{folder}/page/below"));
        let look = |play: &mut Self, at: &str| {
            let found = match play.files.look(&file(at, "one")) {
                Ok(Found::Absent) => "nothing".to_owned(),
                Ok(Found::File { digest, fits }) => {
                    let same = digest == Digest::of(b"one");
                    format!("a file, same: {same}, fits: {fits}")
                }
                Ok(Found::Other) => "something else".to_owned(),
                Err(error) => error.to_string(),
            };
            play.say(format!("at {at}: {found}"));
        };
        look(self, &page);
        for content in ["one", "two"] {
            let done = self.files.write(&file(&page, content), content.as_bytes());
            self.done(&format!("write {content}"), done);
            look(self, &page);
        }
        self.stage.chmod(&page);
        look(self, &page);
        let done = self.files.write(&file(&page, "two"), b"two");
        self.done("write two", done);
        look(self, &page);
        look(self, folder);
        look(self, &below);
        let done = self.files.write(&file(&below, "one"), b"one");
        self.done("write below it", done);
        let done = self.files.write(&file(folder, "one"), b"one");
        self.done("write in place of its folder", done);
        for _ in 0..2 {
            let done = self.files.remove(&path(&page));
            self.done("remove it", done);
        }
        look(self, &page);
        look(self, folder);
    }

    async fn one(&mut self) {
        self.say("\n# a container");
        self.put("web.container", &container("web", HELLO, SERVES, ""));
        self.unit("web.service").await;
        self.reload().await;
        self.unit("web.service").await;
        for verb in [Verb::Start, Verb::Start, Verb::Restart] {
            self.jobs(&[(verb, "web.service")]).await;
            self.unit("web.service").await;
        }
        self.containers();
        self.put(
            "web.container",
            &container("web", HELLO, SERVES, "Environment=A=b"),
        );
        self.reload().await;
        self.unit("web.service").await;
        for verb in [Verb::Stop, Verb::Stop, Verb::Restart] {
            self.jobs(&[(verb, "web.service")]).await;
            self.unit("web.service").await;
            self.containers();
        }
    }

    async fn several(&mut self) {
        self.say("\n# several jobs at once");
        let two = container("two", HELLO, "8098 /index.txt", "");
        self.put("two.container", &two);
        self.reload().await;
        let units = ["two.service", "web.service"];
        let jobs = [
            [(Verb::Start, units[0]), (Verb::Restart, units[1])],
            [(Verb::Restart, units[0]), (Verb::Start, units[1])],
            [(Verb::Stop, units[0]), (Verb::Restart, units[1])],
            [(Verb::Restart, units[0]), (Verb::Start, "none.service")],
        ];
        for jobs in jobs {
            self.jobs(&jobs).await;
            for unit in units {
                self.unit(unit).await;
            }
        }
        self.jobs(&[(Verb::Stop, units[0])]).await;
        self.drop("two.container");
        self.reload().await;
        self.containers();
    }

    async fn vanished(&mut self) {
        self.say("\n# a unit that runs and has lost its file");
        self.drop("web.container");
        self.reload().await;
        self.unit("web.service").await;
        for verb in [Verb::Start, Verb::Restart, Verb::Stop] {
            self.jobs(&[(verb, "web.service")]).await;
        }
        self.until("web.service", |unit| !unit.is_up()).await;
        let done = self.podman.sweep("web").await;
        self.done("sweep web", done);
        self.containers();
    }

    async fn exits(&mut self) {
        self.say("\n# containers that exit at once");
        self.put("bad.container", &container("bad", EXITS, "3", ""));
        let again = "[Service]\nRestart=always\nRestartSec=1h";
        self.put("loop.container", &container("loop", EXITS, "3", again));
        self.reload().await;
        for name in ["bad.service", "loop.service"] {
            // It may or may not have counted as started before it exited, so the result of the job is ignored.
            let job = [(Verb::Start, name.to_owned())];
            let _ = self.systemd.jobs(&job, Duration::from_secs(60)).await;
            self.until(name, UnitState::is_failed).await;
            self.until_journal(name, "Failed with result 'exit-code'.")
                .await;
        }
        self.containers();
        self.jobs(&[(Verb::Stop, "bad.service")]).await;
        self.unit("bad.service").await;
        for name in ["bad.service", "loop.service"] {
            let done = self.systemd.reset_failed(name).await;
            self.done(&format!("reset {name}"), done);
            self.unit(name).await;
        }
        self.jobs(&[(Verb::Stop, "loop.service")]).await;
        self.unit("loop.service").await;
        self.drop("bad.container");
        self.drop("loop.container");
        self.reload().await;
        self.unit("bad.service").await;
    }

    async fn missing_images(&mut self) {
        self.say("\n# images that are missing when a container starts");
        self.stage.lose(HELLO);
        self.put("lost.container", &container("lost", HELLO, SERVES, ""));
        self.put("gone.container", &container("gone", GONE, SERVES, ""));
        self.reload().await;
        self.jobs(&[(Verb::Start, "lost.service")]).await;
        self.unit("lost.service").await;
        let has = self.podman.has_image(HELLO).await;
        self.say(format!("has hello: {has:?}"));
        self.jobs(&[(Verb::Start, "gone.service")]).await;
        self.until("gone.service", UnitState::is_failed).await;
        let done = self.systemd.reset_failed("gone.service").await;
        self.done("reset gone.service", done);
        self.jobs(&[(Verb::Stop, "lost.service")]).await;
        self.drop("lost.container");
        self.drop("gone.container");
        self.reload().await;
    }

    async fn network(&mut self) {
        self.say("\n# a network, started by who needs it");
        self.put(
            "net.network",
            "[Network]\nNetworkName=net\nDisableDNS=true\n",
        );
        let needs = "Network=net.network";
        self.put("user.container", &container("user", HELLO, SERVES, needs));
        self.reload().await;
        self.unit("net-network.service").await;
        for verb in [Verb::Start, Verb::Stop, Verb::Start] {
            self.jobs(&[(verb, "user.service")]).await;
            self.unit("net-network.service").await;
            self.unit("user.service").await;
        }
        self.jobs(&[(Verb::Restart, "net-network.service")]).await;
        self.unit("net-network.service").await;
        // it comes up again after the requested job
        self.until("user.service", UnitState::is_active).await;
        self.jobs(&[(Verb::Stop, "net-network.service")]).await;
        self.unit("net-network.service").await;
        self.unit("user.service").await;
        self.drop("user.container");
        self.drop("net.network");
        self.reload().await;
    }

    async fn pod(&mut self) {
        self.say("\n# a pod");
        let units = ["duo-pod.service", "duo-a.service", "duo-b.service"];
        for member in ["duo-a", "duo-b"] {
            // they share a network namespace, so each needs a port of its own
            let port = if member == "duo-a" { "8091" } else { "8092" };
            let exec = format!("{port} /index.txt");
            let text = container(member, HELLO, &exec, "Pod=duo.pod");
            self.put(&format!("{member}.container"), &text);
        }
        self.reload().await;
        self.unit("duo-a.service").await;
        self.put("duo.pod", "[Pod]\nPodName=duo\n");
        self.reload().await;
        for job in [
            [(Verb::Start, "duo-pod.service")],
            [(Verb::Restart, "duo-a.service")],
            [(Verb::Restart, "duo-pod.service")],
            [(Verb::Stop, "duo-pod.service")],
            [(Verb::Start, "duo-b.service")],
        ] {
            self.jobs(&job).await;
            for unit in units {
                // the members' jobs are not the requested one
                let up = job[0].0 != Verb::Stop;
                self.until(
                    unit,
                    |unit| if up { unit.is_active() } else { !unit.is_up() },
                )
                .await;
            }
        }
        self.containers();
        self.jobs(&units.map(|unit| (Verb::Stop, unit))).await;
        for name in ["duo-a.container", "duo-b.container", "duo.pod"] {
            self.drop(name);
        }
        self.reload().await;
        self.containers();
    }

    async fn not_ours(&mut self) {
        self.say("\n# what is not the fleet's, and what nobody can read");
        self.stage.host_unit("own.service");
        self.put("own.container", &container("own", HELLO, SERVES, ""));
        self.put("odd.container", "[Nonsense]\nImage=x\n");
        self.reload().await;
        self.unit("own.service").await;
        self.unit("odd.service").await;
        self.jobs(&[(Verb::Start, "odd.service")]).await;
        self.drop("own.container");
        self.drop("odd.container");
        self.reload().await;
        self.stage.stray("lonely");
        self.stage.stray("other");
        self.containers();
        let done = self.podman.sweep("lonely").await;
        self.done("sweep lonely", done);
        self.containers();
    }
}
