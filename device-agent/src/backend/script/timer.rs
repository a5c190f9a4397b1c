//! A timer that is enabled, starts its job, and goes.

use super::{EXITS, Environment, Files, Podman, Script, Systemd, Verb, container, file, path};

impl<S: Systemd, P: Podman, F: Files, T: Environment> Script<S, P, F, T> {
    async fn installed(&mut self, name: &str) {
        let state = self.systemd.unit(name).await.expect("an answer");
        self.say(format!("{name} is {:?}", state.file_state));
    }

    pub(super) async fn timer(&mut self) {
        self.say("\n# a timer, and the job that it starts");
        let job = container("tick", EXITS, "0", "[Service]\nType=oneshot");
        self.put("tick.container", &job);
        let at = "/etc/systemd/system/tick.timer";
        let text = "[Timer]\nOnCalendar=yearly\n[Install]\nWantedBy=timers.target\n";
        let done = self.files.write(&file(at, text), text.as_bytes());
        self.done("write tick.timer", done);
        self.reload().await;
        self.installed("tick.service").await;
        self.installed("tick.timer").await;
        for _ in 0..2 {
            let done = self.systemd.enable("tick.timer").await;
            self.done("enable tick.timer", done);
            self.installed("tick.timer").await;
        }
        self.reload().await;
        self.unit("tick.timer").await;
        self.jobs(&[(Verb::Start, "tick.timer")]).await;
        self.unit("tick.timer").await;
        self.unit("tick.service").await;
        self.jobs(&[(Verb::Start, "tick.service")]).await;
        self.until("tick.service", |unit| !unit.is_up()).await;
        self.jobs(&[(Verb::Stop, "tick.timer")]).await;
        for _ in 0..2 {
            let done = self.systemd.disable("tick.timer").await;
            self.done("disable tick.timer", done);
            // it knows only then
            self.reload().await;
            self.installed("tick.timer").await;
        }
        let done = self.files.remove(&path(at));
        self.done("remove tick.timer", done);
        self.drop("tick.container");
        self.reload().await;
        self.unit("tick.timer").await;
        self.containers();
    }
}
