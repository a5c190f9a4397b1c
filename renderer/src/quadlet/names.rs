//! The roles of a workload's files, by their names.

use flotta_bundle::path::UNIT_KINDS;

use super::keys::Kind;

/// The role of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role<'a> {
    /// A Quadlet file.
    Quadlet(Kind),
    /// A unit that systemd reads as it is.
    Systemd,
    /// A drop-in of this Quadlet file.
    QuadletDropIn(&'a str),
    /// A drop-in of this unit, which systemd reads.
    SystemdDropIn(&'a str),
    /// Anything else: configuration, environment, YAML of a `.kube` file.
    Plain,
}

/// Returns the role of a file by its name, or why the name is invalid.
pub fn role(name: &str) -> Result<Role<'_>, String> {
    let parts: Vec<&str> = name.split('/').collect();
    for part in &parts {
        check_part(part)?;
    }
    match parts[..] {
        [name] if unit_kind(name).is_some() => {
            check_unit(name)?;
            Ok(Kind::of(name).map_or(Role::Systemd, Role::Quadlet))
        }
        [folder, file] if drops_into(folder).is_some() => drop_in(folder, file),
        [.., last] if unit_kind(last).is_some() => Err(format!(
            "{last} is in a folder, but units must be at the top: only drop-ins (UNIT.d/NAME.conf) and plain files may be in folders"
        )),
        [.., last] => match last.rsplit_once('.') {
            Some((_, kind @ ("mount" | "automount" | "swap" | "slice" | "scope" | "device"))) => {
                Err(format!(
                    ".{kind} units are not supported: use Quadlet files, or .service, .timer, .socket, .path, .target"
                ))
            }
            _ => Ok(Role::Plain),
        },
        [] => Err("it is empty".to_owned()),
    }
}

fn check_part(part: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@+".contains(c);
    if part.is_empty() || part == "." || part == ".." {
        return Err("it is not a plain path".to_owned());
    }
    match part.chars().find(|c| !plain(*c)) {
        Some(odd) => Err(format!(
            "it has {odd:?}: letters, digits and `-`, `_`, `.`, `@`, `+` are allowed"
        )),
        None => Ok(()),
    }
}

/// Returns the extension of a file that is a unit.
fn unit_kind(name: &str) -> Option<&str> {
    let (_, extension) = name.rsplit_once('.')?;
    (Kind::of(name).is_some() || UNIT_KINDS.contains(&extension)).then_some(extension)
}

/// Returns the unit of a drop-in folder, or the kind if the folder is for all units of a kind.
fn drops_into(folder: &str) -> Option<&str> {
    let unit = folder.strip_suffix(".d")?;
    let kind = unit.rsplit_once('.').map_or(unit, |(_, kind)| kind);
    unit_kind(&format!("x.{kind}")).map(|_| unit)
}

fn drop_in<'a>(folder: &'a str, file: &str) -> Result<Role<'a>, String> {
    let unit = folder.strip_suffix(".d").unwrap_or(folder);
    let stem = unit.rsplit_once('.').map_or("", |(stem, _)| stem);
    if stem.is_empty() || stem.ends_with('-') || stem.ends_with("-@") {
        return Err(format!(
            "{folder} also applies to units of other workloads: write a drop-in for each unit, UNIT.d/{file}"
        ));
    }
    check_unit(unit)?;
    if file.strip_suffix(".conf").is_none() || file.starts_with('.') {
        return Err("a drop-in must be named NAME.conf: others are not read".to_owned());
    }
    Ok(if Kind::of(unit).is_some() {
        Role::QuadletDropIn(unit)
    } else {
        Role::SystemdDropIn(unit)
    })
}

/// Checks that systemd allows the name of a unit, and that it needs no escapes.
fn check_unit(name: &str) -> Result<(), String> {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    if stem.is_empty() || stem.starts_with(['.', '-', '@']) {
        return Err("a unit's name must begin with a letter or digit".to_owned());
    }
    if stem.contains('+') {
        return Err("it has '+', which a unit's name may not have".to_owned());
    }
    if stem.matches('@').count() > 1 {
        return Err("it has more than one `@`: TEMPLATE@.KIND, TEMPLATE@INSTANCE.KIND".to_owned());
    }
    Ok(())
}

/// Returns the template and the instance of a unit's name: `model@small.container` is `small` of `model@.container`.
pub fn template(name: &str) -> Option<(String, &str)> {
    let (stem, kind) = name.rsplit_once('.')?;
    let (base, instance) = stem.split_once('@')?;
    Some((format!("{base}@.{kind}"), instance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_says_its_role() {
        for (name, role_of) in [
            ("web.container", Role::Quadlet(Kind::Container)),
            ("a.b-c_d.pod", Role::Quadlet(Kind::Pod)),
            ("model@.container", Role::Quadlet(Kind::Container)),
            ("model@small.kube", Role::Quadlet(Kind::Kube)),
            ("app.build", Role::Quadlet(Kind::Build)),
            ("job.timer", Role::Systemd),
            ("site.target", Role::Systemd),
            (
                "web.container.d/10.conf",
                Role::QuadletDropIn("web.container"),
            ),
            (
                "model@.container.d/a.conf",
                Role::QuadletDropIn("model@.container"),
            ),
            ("web.service.d/a.conf", Role::SystemdDropIn("web.service")),
            ("web.env", Role::Plain),
            (".env", Role::Plain),
            ("Containerfile", Role::Plain),
            ("conf.d/a.conf", Role::Plain),
            ("config/deep/site.yaml", Role::Plain),
        ] {
            assert_eq!(role(name), Ok(role_of), "{name}");
        }
    }

    #[test]
    fn invalid_names_are_refused_with_a_reason() {
        for (name, why) in [
            ("../up.container", "plain path"),
            ("a//b", "plain path"),
            ("a b.env", "' '"),
            (".hidden.container", "letter or digit"),
            ("@.container", "letter or digit"),
            ("a@b@c.container", "more than one"),
            ("app/web.container", "at the top"),
            ("container.d/10.conf", "other workloads"),
            ("web-.container.d/10.conf", "other workloads"),
            ("web.container.d/10.txt", "NAME.conf"),
            ("data.mount", "not supported"),
            ("a+b.service", "'+'"),
        ] {
            let error = role(name).expect_err(name);
            assert!(error.contains(why), "{name}: {error}");
        }
    }

    #[test]
    fn a_name_is_split_into_template_and_instance() {
        let found = template("model@small.container");
        assert_eq!(found, Some(("model@.container".to_owned(), "small")));
        assert_eq!(template("web.container"), None);
    }
}
