//! Starts `flotta-agent.service` for `flotta-agent enrol`.

use std::path::Path;

use zbus::{Connection, Proxy};

/// The unit that runs the agent.
pub const UNIT: &str = "flotta-agent.service";

/// Whether systemd runs this machine (`sd_booted(3)`).
pub fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

async fn manager() -> zbus::Result<Proxy<'static>> {
    let bus = Connection::system().await?;
    Proxy::new_owned(
        bus,
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
    )
    .await
}

/// Enables and starts the agent: now and at every boot.
pub async fn start() -> zbus::Result<()> {
    let manager = manager().await?;
    let _: (bool, Vec<(String, String, String)>) = manager
        .call("EnableUnitFiles", &(vec![UNIT], false, true))
        .await?;
    let () = manager.call("Reload", &()).await?;
    let _: zbus::OwnedObjectPath = manager.call("RestartUnit", &(UNIT, "replace")).await?;
    Ok(())
}
