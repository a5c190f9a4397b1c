//! A client of systemd over D-Bus (org.freedesktop.systemd1(5)).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use zbus::OwnedVariant;
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, Proxy};

use super::{BackendError, Systemd, UnitState, Verb};

const SERVICE: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
/// Longest wait for an answer. A reload with hundreds of Quadlet files on a slow disk takes seconds.
const ANSWER: Duration = Duration::from_secs(90);
/// Changes come in bursts (a start is five), which are handled together.
const BURST: Duration = Duration::from_millis(100);
/// Longest wait for the journal.
const JOURNAL: Duration = Duration::from_secs(10);
/// Most lines of the journal that are read, and their bytes.
const LINES: &str = "30";
const MAX_JOURNAL: usize = 64 << 10;

/// systemd on the system bus.
#[derive(Debug)]
pub struct Bus {
    connection: Connection,
    manager: Proxy<'static>,
    /// Object paths of the units that were asked for: only their changes matter.
    ours: Arc<Mutex<BTreeSet<String>>>,
    /// Counts their changes; closed when the bus is gone.
    changes: watch::Receiver<u64>,
    again: Option<Instant>,
}

impl From<zbus::Error> for BackendError {
    fn from(error: zbus::Error) -> Self {
        Self::Other(error.to_string())
    }
}

/// No `sender`: messages carry the bus's own name for it, which this rule would not match. Only the bus's policy lets a
/// program other than systemd send them.
fn rule(interface: &'static str, member: &'static str) -> zbus::match_rule::Builder<'static> {
    MatchRule::builder()
        .msg_type(Type::Signal)
        .interface(interface)
        .member(member)
}

impl Bus {
    /// Connects, and subscribes to changes.
    pub async fn open() -> Result<Self, BackendError> {
        let connection = zbus::connection::Builder::system()
            .method_timeout(ANSWER)
            .build()
            .await?;
        let manager = Proxy::new_owned(connection.clone(), SERVICE, PATH, MANAGER).await?;
        let units = rule(PROPERTIES, "PropertiesChanged")
            .path_namespace("/org/freedesktop/systemd1/unit")
            .add_arg(UNIT)
            .build()?;
        let stream = MessageStream::for_match_rule(units, &connection, None).await?;
        let ours = Arc::new(Mutex::new(BTreeSet::new()));
        let (count, changes) = watch::channel(0);
        // masking, unmasking and reloading can change a unit without changing its state
        for member in ["UnitFilesChanged", "Reloading"] {
            let rule = rule(MANAGER, member).build()?;
            let stream = MessageStream::for_match_rule(rule, &connection, None).await?;
            tokio::spawn(listen(stream, None, count.clone()));
        }
        tokio::spawn(listen(stream, Some(Arc::clone(&ours)), count));
        let () = manager.call("Subscribe", &()).await?;
        Ok(Self {
            connection,
            manager,
            ours,
            changes,
            again: None,
        })
    }

    async fn properties(
        &self,
        path: &OwnedObjectPath,
        interface: &str,
    ) -> Result<Properties, BackendError> {
        let proxy = Proxy::new(&self.connection, SERVICE, path, PROPERTIES).await?;
        Ok(Properties(proxy.call("GetAll", &(interface,)).await?))
    }

    /// Listens for the results of jobs.
    async fn ends(&self) -> Result<(JobResults, JoinHandle<()>), BackendError> {
        let rule = rule(MANAGER, "JobRemoved").build()?;
        let mut stream = MessageStream::for_match_rule(rule, &self.connection, None).await?;
        let (sender, ends) = mpsc::unbounded_channel();
        let listener = tokio::spawn(async move {
            while let Some(message) = stream.next().await {
                let Ok(message) = message else { continue };
                let body = message.body();
                let removed = body.deserialize::<(u32, OwnedObjectPath, String, String)>();
                if let Ok((_, job, _, result)) = removed
                    && sender.send((job.as_str().to_owned(), result)).is_err()
                {
                    return;
                }
            }
        });
        Ok((ends, listener))
    }
}

/// Counts changes of the agent's units, or all signals of a kind. It never stops reading: a stream that nobody reads fills
/// up and then blocks the whole connection.
async fn listen(
    mut stream: MessageStream,
    ours: Option<Arc<Mutex<BTreeSet<String>>>>,
    count: watch::Sender<u64>,
) {
    while let Some(message) = stream.next().await {
        let Ok(message) = message else { continue };
        let header = message.header();
        let is_ours = |path: &str| {
            ours.as_ref()
                .is_none_or(|ours| ours.lock().is_ok_and(|ours| ours.contains(path)))
        };
        if header.path().is_some_and(|path| is_ours(path.as_str())) {
            count.send_modify(|count| *count += 1);
        }
        if count.is_closed() {
            return;
        }
    }
}

/// The mount unit of a path, as `systemd-escape --path` names it.
fn mount_unit(path: &str) -> String {
    let mut name = String::new();
    for (at, byte) in path.trim_matches('/').bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if at == 0 => name.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => {
                name.push(char::from(byte));
            }
            other => {
                // Writing to a string cannot fail.
                let _ = write!(name, "\\x{other:02x}");
            }
        }
    }
    if name.is_empty() {
        name.push('-');
    }
    name + ".mount"
}

/// A unit in a list: name, description, load and active state, sub-state, unit that it follows, path, and its job.
type Listed = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

/// The results of jobs, by their object path.
type JobResults = mpsc::UnboundedReceiver<(String, String)>;

struct Properties(HashMap<String, OwnedVariant>);

impl Properties {
    fn text(&self, name: &str) -> String {
        let value = self
            .0
            .get(name)
            .and_then(|value| <&str>::try_from(value).ok());
        value.unwrap_or_default().to_owned()
    }

    fn number<T: for<'a> TryFrom<&'a OwnedVariant>>(&self, name: &str) -> Option<T> {
        self.0.get(name).and_then(|value| T::try_from(value).ok())
    }

    fn hex(&self, name: &str) -> String {
        let bytes = self
            .0
            .get(name)
            .and_then(|value| Vec::<u8>::try_from(value.clone()).ok());
        data_encoding::HEXLOWER.encode(&bytes.unwrap_or_default())
    }
}

impl Systemd for Bus {
    async fn reload(&mut self) -> Result<(), BackendError> {
        Ok(self.manager.call("Reload", &()).await?)
    }

    async fn unit(&mut self, name: &str) -> Result<UnitState, BackendError> {
        let path: OwnedObjectPath = self.manager.call("LoadUnit", &(name,)).await?;
        if let Ok(mut ours) = self.ours.lock() {
            ours.insert(path.as_str().to_owned());
        }
        let unit = self.properties(&path, UNIT).await?;
        let mut state = UnitState {
            load: unit.text("LoadState"),
            active: unit.text("ActiveState"),
            sub: unit.text("SubState"),
            source: unit.text("SourcePath"),
            fragment: unit.text("FragmentPath"),
            file_state: unit.text("UnitFileState"),
            invocation: unit.hex("InvocationID"),
            ..UnitState::default()
        };
        let changed = unit
            .number::<u64>("StateChangeTimestamp")
            .filter(|at| *at > 0);
        state.since =
            changed.and_then(|at| Timestamp::from_microsecond(i64::try_from(at).ok()?).ok());
        if state.is_active() {
            let now = clock_gettime(ClockId::Monotonic);
            let now = Duration::new(
                u64::try_from(now.tv_sec).unwrap_or(0),
                u32::try_from(now.tv_nsec).unwrap_or(0),
            );
            let entered = unit
                .number::<u64>("ActiveEnterTimestampMonotonic")
                .map(Duration::from_micros);
            state.active_for = entered.map(|entered| now.saturating_sub(entered));
        }
        if name.ends_with(".service") && state.is_loaded() {
            let service = self
                .properties(&path, "org.freedesktop.systemd1.Service")
                .await?;
            state.result = service.text("Result");
            state.restart = service.text("Restart");
            state.exit_status = service.number("ExecMainStatus").unwrap_or(0);
            // CLD_EXITED is 1, CLD_KILLED 2, CLD_DUMPED 3.
            state.killed = service
                .number::<i32>("ExecMainCode")
                .is_some_and(|code| code > 1);
            state.restarts = service.number("NRestarts").unwrap_or(0);
        }
        Ok(state)
    }

    async fn instances(&mut self, template: &str) -> Result<Vec<String>, BackendError> {
        let pattern = template.replace('\\', "\\\\").replacen("@.", "@*.", 1);
        let any_state: [&str; 0] = [];
        let units: Vec<Listed> = self
            .manager
            .call(
                "ListUnitsByPatterns",
                &(any_state.as_slice(), [pattern.as_str()].as_slice()),
            )
            .await?;
        let up = units.into_iter().filter(|unit| unit.3 != "inactive");
        Ok(up.map(|unit| unit.0).collect())
    }

    async fn jobs(
        &mut self,
        jobs: &[(Verb, String)],
        limit: Duration,
    ) -> Vec<(String, BackendError)> {
        let all = |error: &BackendError| {
            jobs.iter()
                .map(|(_, name)| (name.clone(), error.clone()))
                .collect()
        };
        // Listen before the first job starts: a job may be done before its call returns.
        let (mut ends, listener) = match self.ends().await {
            Ok(found) => found,
            Err(error) => return all(&error),
        };
        let mut open = BTreeMap::new();
        let mut failures = Vec::new();
        for (verb, name) in jobs {
            let method = match verb {
                Verb::Start => "StartUnit",
                Verb::Stop => "StopUnit",
                Verb::Restart => "RestartUnit",
            };
            let job: Result<OwnedObjectPath, _> =
                self.manager.call(method, &(name, "replace")).await;
            match job {
                Ok(job) => {
                    open.insert(job.as_str().to_owned(), name.clone());
                }
                Err(error) => failures.push((name.clone(), error.into())),
            }
        }
        let end = Instant::now() + limit;
        while !open.is_empty() {
            let Ok(Some((job, result))) = timeout_at(end, ends.recv()).await else {
                break;
            };
            if let Some(name) = open.remove(&job)
                && result != "done"
            {
                failures.push((name, BackendError::Other(format!("job ended: {result}"))));
            }
        }
        listener.abort();
        failures.extend(open.into_values().map(|name| {
            (
                name,
                BackendError::Other(format!("not done after {} s", limit.as_secs())),
            )
        }));
        failures
    }

    async fn enable(&mut self, name: &str) -> Result<(), BackendError> {
        let (for_now, over_others) = (false, false);
        let _: (bool, Vec<(String, String, String)>) = self
            .manager
            .call("ReenableUnitFiles", &(vec![name], for_now, over_others))
            .await?;
        Ok(())
    }

    async fn disable(&mut self, name: &str) -> Result<(), BackendError> {
        let for_now = false;
        let _: Vec<(String, String, String)> = self
            .manager
            .call("DisableUnitFiles", &(vec![name], for_now))
            .await?;
        Ok(())
    }

    async fn reset_failed(&mut self, name: &str) -> Result<(), BackendError> {
        Ok(self.manager.call("ResetFailedUnit", &(name,)).await?)
    }

    async fn journal(&mut self, name: &str) -> Vec<String> {
        let mut command = Command::new("journalctl");
        command.args([
            "--quiet",
            "--no-pager",
            "--output=cat",
            "--lines",
            LINES,
            "--unit",
            name,
        ]);
        command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let Ok(Ok(output)) = timeout(JOURNAL, command.output()).await else {
            return Vec::new();
        };
        let tail = &output.stdout[output.stdout.len().saturating_sub(MAX_JOURNAL)..];
        String::from_utf8_lossy(tail)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    async fn changed(&mut self) {
        let again = self.again;
        let alive = tokio::select! {
            changed = self.changes.changed() => changed.is_ok(),
            () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => true,
        };
        self.again = None;
        if !alive {
            // The bus was restarted. Until it is back, units are polled from time to time.
            sleep(ANSWER).await;
            if let Ok(fresh) = Self::open().await {
                *self = fresh;
            }
            return;
        }
        let end = Instant::now() + BURST;
        while let Ok(Ok(())) = timeout_at(end, self.changes.changed()).await {}
    }

    fn look_again(&mut self, after: Option<Duration>) {
        self.again = after.map(|after| Instant::now() + after);
    }

    async fn is_writable(&mut self, path: &str) -> Option<bool> {
        let mut path = path;
        loop {
            let unit: Result<OwnedObjectPath, _> =
                self.manager.call("GetUnit", &(mount_unit(path),)).await;
            if let Ok(unit) = unit {
                let unit_of = self.properties(&unit, UNIT).await.ok()?;
                if unit_of.text("ActiveState") == "active" {
                    let mount = self
                        .properties(&unit, "org.freedesktop.systemd1.Mount")
                        .await
                        .ok()?;
                    let options = mount.text("Options");
                    return Some(options.split(',').any(|option| option == "rw"));
                }
            }
            if path.is_empty() {
                return None;
            }
            path = path.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_named_as_systemd_names_them() {
        // as systemd-escape --path --suffix=mount says
        for (path, unit) in [
            ("", "-.mount"),
            ("/etc", "etc.mount"),
            ("/etc/containers/systemd", "etc-containers-systemd.mount"),
            ("/etc/my-data", "etc-my\\x2ddata.mount"),
            ("/.x/.y", "\\x2ex-.y.mount"),
        ] {
            assert_eq!(mount_unit(path), unit, "{path}");
        }
    }
}
