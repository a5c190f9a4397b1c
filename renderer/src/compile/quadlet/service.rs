//! Writes health checks and the `[Service]` section of a container.

use crate::compile::unit::{Check, Hook, Restart, Service};
use crate::compile::writer::Writer;

pub(super) fn stop(file: &mut Writer, service: &Service) {
    if let Some(signal) = &service.stop_signal {
        file.value("StopSignal", signal);
    }
    file.fixed("StopTimeout", &service.stop_seconds.to_string());
}

pub(super) fn health(file: &mut Writer, check: &Check) {
    let Check {
        command,
        delay,
        interval,
        timeout,
        failures,
    } = check;
    let arguments = [
        ("cmd", health_command(command)),
        ("interval", format!("{interval}s")),
        ("timeout", format!("{timeout}s")),
        ("retries", failures.to_string()),
        ("start-period", format!("{delay}s")),
        ("on-failure", "stop".to_owned()),
    ];
    for (name, value) in arguments {
        file.words("PodmanArgs", [format!("--health-{name}={value}").as_str()]);
    }
}

/// Returns a command in Podman's format. A JSON array of one word would be run by a shell.
fn health_command(command: &[String]) -> String {
    match command {
        [program] => format!("CMD {program}"),
        words => serde_json::to_string(words).unwrap_or_default(),
    }
}

pub(super) fn service(file: &mut Writer, name: &str, service: &Service) {
    let Service {
        restart,
        oneshot,
        remains,
        stop_seconds,
        stop_signal: _, // in [Container]
        started,
        stopping,
        deadline,
    } = service;
    retries(file, *restart);
    if *oneshot {
        file.fixed("Type", "oneshot");
    }
    if *remains {
        file.fixed("RemainAfterExit", "yes");
    }
    // This is more than Podman's own timeout, because removing the container takes a while on a slow disk.
    let stop = stop_seconds.saturating_add(60);
    file.fixed("TimeoutStopSec", &stop.to_string());
    if let Some(seconds) = deadline {
        file.fixed("RuntimeMaxSec", &seconds.to_string());
    }
    let podman = ["/usr/bin/podman", "exec", name];
    match started {
        // TimeoutStartSec= is its only limit, because Kubernetes has none.
        Some(Hook::Command(command)) => {
            let words = podman.into_iter().chain(command.iter().map(String::as_str));
            file.words("ExecStartPost", words);
        }
        Some(Hook::Sleep(seconds)) => {
            file.words("ExecStartPost", ["/usr/bin/sleep", &seconds.to_string()]);
        }
        None => {}
    }
    // The hook must end within the grace period. As in Kubernetes, the container stops even if the hook fails.
    let limit = *stop_seconds.max(&1);
    match stopping {
        Some(Hook::Command(command)) => {
            let limit = limit.to_string();
            let timeout = ["-/usr/bin/timeout", &limit].into_iter().chain(podman);
            let words = timeout.chain(command.iter().map(String::as_str));
            file.words("ExecStop", words);
        }
        Some(Hook::Sleep(seconds)) => {
            let seconds = (*seconds).min(limit);
            file.words("ExecStop", ["-/usr/bin/sleep", &seconds.to_string()]);
        }
        None => {}
    }
}

/// Writes the settings of restarts: systemd keeps trying, with growing pauses.
pub(super) fn retries(file: &mut Writer, restart: Restart) {
    file.section("Service");
    let restart = match restart {
        Restart::Always => "always",
        Restart::OnFailure => "on-failure",
        Restart::Never => "no",
    };
    file.fixed("Restart", restart);
    file.fixed("RestartSec", "1s");
    // From one second to a minute in six steps (systemd 254; older ones stay at a second).
    file.fixed("RestartSteps", "6");
    file.fixed("RestartMaxDelaySec", "60s");
    // Images are pulled before; the timeout is for a device that lost its image store and must pull them again.
    file.fixed("TimeoutStartSec", "900");
}
