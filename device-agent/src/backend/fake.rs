//! A machine in memory. The three fakes look at one [`World`] and change it by the rules that the real systemd, Quadlet and
//! Podman have. Every change is a numbered call, and the agent can be made to die at any of them.

#![expect(
    missing_docs,
    reason = "the names say it; nobody reads the documentation of a test's code"
)]

pub mod bundle;
mod health;
mod links;
mod state;
mod tests;

use std::cell::{RefCell, RefMut};
use std::panic::resume_unwind;
use std::rc::Rc;

use flotta_bundle::path::UNITS;

pub use state::{Action, Definition, Entry, State};

use state::{Hook, no_unit, refused, restart};

use super::{
    BTreeSet, BackendError, Container, DevicePath, Digest, Duration, File, Files, Found, Podman,
    Systemd, UnitState, Verb, messages,
};

/// The folder that Quadlet reads.
pub const QUADLET: &str = "/etc/containers/systemd/";

const READ_ONLY: &str = "Read-only file system (os error 30)";
const NO_FOLDER: &str = "there is a link or a file where a folder should be";

/// The panic payload of a simulated crash: a test that sees another payload has found a bug.
#[derive(Debug)]
pub struct Crashed;

/// The machine, as its three fakes and the test share it.
#[derive(Debug, Clone, Default)]
pub struct World(Rc<RefCell<State>>);

impl World {
    pub fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// Makes the agent crash at this call, counted from 1 and from now: before it takes effect, or after.
    pub fn crash_at(&self, call: usize, after: bool) {
        let mut state = self.state();
        state.calls = 0;
        state.crashes = Some((call, after));
    }

    /// Runs something at this call, counted from 1 and from now, before the call takes effect.
    pub fn at_call(&self, call: usize, what: impl FnOnce() + 'static) {
        let mut state = self.state();
        state.calls = 0;
        state.hook = Some((call, Hook(Box::new(what))));
    }

    /// Cancels a crash that is still to come; whether there was one.
    pub fn spare(&self) -> bool {
        self.state().crashes.take().is_some()
    }

    /// Returns what happened since the last call of this function.
    pub fn log(&self) -> Vec<Action> {
        std::mem::take(&mut self.state().log)
    }

    pub fn put(&self, path: &str, content: &str) {
        let content = content.as_bytes().to_vec();
        let file = Entry::File {
            content,
            fits: true,
        };
        self.state().files.insert(path.to_owned(), file);
    }

    /// Counts a call, and returns whether the agent crashes at it: after its effect or before.
    fn count(&self) -> Option<bool> {
        let mut state = self.state();
        state.calls += 1;
        let now = state.calls;
        if let Some((_, hook)) = state.hook.take_if(|(call, _)| *call == now) {
            (hook.0)();
        }
        let (call, after) = state.crashes?;
        if call != state.calls {
            return None;
        }
        state.crashes = None;
        Some(after)
    }

    fn act<T>(&self, effect: impl FnOnce(&mut State) -> T) -> T {
        let crashes = self.count();
        if crashes == Some(false) {
            resume_unwind(Box::new(Crashed));
        }
        let out = effect(&mut self.state());
        if crashes == Some(true) {
            resume_unwind(Box::new(Crashed));
        }
        out
    }
}

impl Systemd for World {
    async fn reload(&mut self) -> Result<(), BackendError> {
        self.act(|state| {
            if state.faults.no_reload {
                return Err(refused("Connection timed out".to_owned()));
            }
            state.reload();
            Ok(())
        })
    }

    async fn unit(&mut self, name: &str) -> Result<UnitState, BackendError> {
        let state = self.state();
        let (definition, run) = (state.definition(name), state.runs.get(name));
        let run = run.cloned().unwrap_or_default();
        let or = |text: &str, other: &str| if text.is_empty() { other } else { text }.to_owned();
        let mut unit = UnitState {
            load: "not-found".to_owned(),
            active: or(run.active, "inactive"),
            sub: or(run.sub, "dead"),
            invocation: run.invocation,
            active_for: (run.active == "active").then_some(Duration::from_secs(60)),
            ..UnitState::default()
        };
        if state.faults.masked.contains(name) {
            "masked".clone_into(&mut unit.load);
        } else if let Some(Definition { source, text }) = definition {
            "loaded".clone_into(&mut unit.load);
            // only services have these
            if name.ends_with(".service") {
                unit.result = or(run.result, "success");
                unit.exit_status = run.exit;
                unit.restarts = run.restarts;
                restart(text).clone_into(&mut unit.restart);
            }
            if source.starts_with(QUADLET) {
                unit.source.clone_from(source);
                unit.fragment = format!("/run/systemd/generator/{name}");
                "generated".clone_into(&mut unit.file_state);
            } else {
                unit.fragment.clone_from(source);
                let file_state = match links::links(text).is_empty() {
                    _ if state.enabled.contains_key(name) => "enabled",
                    false => "disabled",
                    true => "static",
                };
                file_state.clone_into(&mut unit.file_state);
            }
        }
        Ok(unit)
    }

    async fn instances(&mut self, template: &str) -> Result<Vec<String>, BackendError> {
        let state = self.state();
        let runs = state.runs.iter().filter(|(name, run)| {
            state::template(name).is_some_and(|of| of == template) && run.active != "inactive"
        });
        Ok(runs.map(|(name, _)| name.clone()).collect())
    }

    /// Each job is a call of its own; systemd carries on with the jobs it has when the agent crashes.
    async fn jobs(&mut self, jobs: &[(Verb, String)], _: Duration) -> Vec<(String, BackendError)> {
        for at in 0..jobs.len() {
            if let Some(after) = self.count() {
                self.state().run_jobs(&jobs[..at + usize::from(after)]);
                resume_unwind(Box::new(Crashed));
            }
        }
        self.state().run_jobs(jobs)
    }

    async fn enable(&mut self, name: &str) -> Result<(), BackendError> {
        self.act(|state| {
            let names = [Some(name.to_owned()), state::template(name)];
            let mut files = names.iter().flatten().filter_map(|name| {
                let file = state.files.get(&format!("{UNITS}{name}"));
                file.filter(|file| matches!(file, Entry::File { .. }))
            });
            let Some(Entry::File { content, .. }) = files.next() else {
                return Err(refused(format!(
                    "org.freedesktop.systemd1.NoSuchUnit: Unit {name} does not exist"
                )));
            };
            let links = links::links(&String::from_utf8_lossy(content));
            state.enabled.remove(name);
            if !links.is_empty() {
                state.enabled.insert(name.to_owned(), links);
            }
            Ok(())
        })
    }

    async fn disable(&mut self, name: &str) -> Result<(), BackendError> {
        self.act(|state| {
            state.enabled.remove(name);
            Ok(())
        })
    }

    async fn reset_failed(&mut self, name: &str) -> Result<(), BackendError> {
        self.act(|state| {
            let State { loaded, runs, .. } = state;
            if !loaded.contains_key(name) && !runs.contains_key(name) {
                return Err(no_unit(name, "loaded"));
            }
            if let Some(run) = runs.get_mut(name) {
                (run.result, run.restarts) = ("success", 0);
                if run.active == "failed" {
                    (run.active, run.sub, run.exit) = ("inactive", "dead", 0);
                }
            }
            runs.retain(|name, run| loaded.contains_key(name) || run.active != "inactive");
            Ok(())
        })
    }

    async fn journal(&mut self, name: &str) -> Vec<String> {
        self.state().journal.get(name).cloned().unwrap_or_default()
    }

    async fn changed(&mut self) {}

    fn look_again(&mut self, _: Option<Duration>) {}

    async fn is_writable(&mut self, path: &str) -> Option<bool> {
        let state = self.state();
        Some(!state.faults.writes.contains(path) || state.faults.stale_mounts)
    }
}

impl Podman for World {
    async fn has_image(&self, reference: &str) -> Result<bool, BackendError> {
        let mut state = self.state();
        state.storage()?;
        Ok(state.images.contains(reference))
    }

    async fn pull(&self, reference: &str) -> Result<(), BackendError> {
        self.act(|state| {
            state.storage()?;
            if !state.registry.contains(reference) {
                return Err(refused(format!("{reference}: manifest unknown")));
            }
            if state.faults.large.contains(reference) {
                let why = "unpacking failed (error: exit status 1; output: write /data: no space left on device)";
                return Err(messages::podman(why.to_owned()));
            }
            state.log.push(Action::Pull(reference.to_owned()));
            state.images.insert(reference.to_owned());
            Ok(())
        })
    }

    async fn sweep(&self, workload: &str) -> Result<(), BackendError> {
        self.act(|state| {
            if state.faults.no_sweep {
                return Err(refused("no answer in time".to_owned()));
            }
            state.log.push(Action::Sweep(workload.to_owned()));
            state.containers.retain(|_, label| label != workload);
            Ok(())
        })
    }

    async fn container(&self, name: &str) -> Result<Option<Container>, BackendError> {
        let mut state = self.state();
        state.storage()?;
        Ok(state.container(name))
    }

    async fn stop(&self, id: &str) -> Result<bool, BackendError> {
        self.act(|state| {
            state.storage()?;
            Ok(state.end(id))
        })
    }

    async fn prepare(&self, id: &str, command: &[String]) -> Result<String, BackendError> {
        let mut state = self.state();
        state.storage()?;
        let runs = state.runs.values().any(|run| run.invocation == id);
        runs.then(|| command.join(" "))
            .ok_or_else(|| refused("no such container".to_owned()))
    }

    async fn run(&self, command: &str) -> Result<i32, BackendError> {
        if self.state().faults.hangs.contains(command) {
            self.state().hanging += 1;
            std::future::pending::<()>().await;
        }
        Ok(i32::from(self.state().faults.commands.contains(command)))
    }

    async fn is_running(&self, command: &str) -> Result<bool, BackendError> {
        Ok(self.state().faults.hangs.contains(command))
    }

    fn remembers(&self) -> Option<String> {
        self.state().remembered.clone()
    }

    fn forget(&self) -> Result<(), BackendError> {
        self.act(|state| state.remembered = None);
        Ok(())
    }
}

fn no_file(path: &DevicePath, why: &str) -> BackendError {
    let (path, why) = (path.clone(), why.to_owned());
    match &*why {
        READ_ONLY => BackendError::ReadOnly { path, why },
        _ => BackendError::File { path, why },
    }
}

impl Files for World {
    fn look(&mut self, file: &File) -> Result<Found, BackendError> {
        let path = file.path.as_str();
        let state = self.state();
        match (state.files.get(path), state.blocks(path)) {
            (Some(Entry::File { content, fits }), _) => Ok(Found::File {
                digest: Digest::of(content),
                fits: *fits,
            }),
            (Some(Entry::Other), _) => Ok(Found::Other),
            (None, Some(other)) if other.as_str() > path => Ok(Found::Other),
            (None, Some(_)) => Err(no_file(&file.path, NO_FOLDER)),
            (None, None) => Ok(Found::Absent),
        }
    }

    fn write(&mut self, file: &File, content: &[u8]) -> Result<(), BackendError> {
        self.act(|state| {
            let path = file.path.as_str();
            let why = match state.blocks(path) {
                _ if state.faults.writes.contains(path) => READ_ONLY,
                Some(other) if other.as_str() > path => "Is a directory (os error 21)",
                Some(_) => NO_FOLDER,
                None => "",
            };
            if !why.is_empty() {
                return Err(no_file(&file.path, why));
            }
            let content = content.to_vec();
            let file = Entry::File {
                content,
                fits: true,
            };
            state.files.insert(path.to_owned(), file);
            Ok(())
        })
    }

    fn remove(&mut self, path: &DevicePath) -> Result<(), BackendError> {
        self.act(|state| {
            if state.faults.removes.contains(path.as_str()) {
                return Err(no_file(path, READ_ONLY));
            }
            state.files.remove(path.as_str());
            Ok(())
        })
    }

    fn is_writable(&self, path: &DevicePath) -> bool {
        !self.state().faults.writes.contains(path.as_str())
    }

    fn watch(&mut self, paths: BTreeSet<DevicePath>) {
        self.state().watched = paths;
    }

    async fn changed(&mut self) {}
}
