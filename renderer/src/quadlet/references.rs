//! Which other units and files a unit needs to be on the device.

use flotta_bundle::code;

use super::Fault;
use super::check::Checker;
use super::file::Spot;
use super::keys::Kind;
use super::unit::Value;

/// Something that must be on the device: a Quadlet file, or a file next to the unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Its name among the device's Quadlet files.
    pub name: String,
    /// The file that needs it.
    pub file: String,
    /// The place that names it.
    pub spot: Spot,
    /// The error if it is missing.
    pub message: String,
}

impl Need {
    /// Returns the error to report if it is missing.
    pub fn fault(&self) -> Fault {
        Fault::error(
            code::MISSING_REFERENCE,
            &self.file,
            self.spot,
            self.message.as_str(),
        )
    }
}

/// Resolves a relative path of a unit file against the unit's folder, as Quadlet does. Returns `None` if the path leads out of
/// the folder.
pub fn resolve(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

impl Checker<'_, '_> {
    /// Adds another Quadlet file of the device to what the unit needs.
    pub(super) fn need_unit(&mut self, value: &Value<'_>, spot: Spot, name: &str) {
        let message = format!(
            "`{name}` is not among the Quadlet files of the device: without it, Quadlet makes no unit from {}",
            self.unit.name
        );
        self.needs.push(Need {
            name: name.to_owned(),
            file: value.file.to_owned(),
            spot,
            message,
        });
    }

    /// Adds the file at a path to what the unit needs, if it is next to the unit: others do not belong to the fleet.
    pub(super) fn need_file(&mut self, value: &Value<'_>, spot: Spot, path: &str) {
        // what systemd fills in is not known here: `%h/…`, the instance of a template; `%%` is a percent sign
        if path.starts_with('/') || path.replace("%%", "").contains('%') {
            return;
        }
        if let Some(name) = resolve(&path.replace("%%", "%")) {
            let message = format!("`{path}` is not among the files next to {}", self.unit.name);
            self.needs.push(Need {
                name,
                file: value.file.to_owned(),
                spot,
                message,
            });
        }
    }

    /// Checks `Image=`: the name of an image, or a `.image` or `.build` file.
    pub(super) fn image(&mut self, section: &str) {
        let unit = self.unit;
        let Some(image) = unit.said(section, "Image") else {
            return;
        };
        if [".image", ".build"]
            .iter()
            .any(|end| image.text.ends_with(end))
        {
            self.need_unit(&image, image.spot(), image.text);
        }
    }

    /// Checks `Volume=`: a path, the name of a volume, or a `.volume` file.
    pub(super) fn volumes(&mut self, section: &str) {
        let unit = self.unit;
        for volume in unit.all(section, "Volume") {
            let Some((source, _)) = volume.text.split_once(':') else {
                continue;
            };
            let spot = volume.entry.spot_at(0, source.chars().count());
            self.storage(&volume, spot, source, false);
        }
    }

    /// Checks the source of a volume or a mount.
    pub(super) fn storage(&mut self, value: &Value<'_>, spot: Spot, source: &str, images: bool) {
        let kind = Kind::of(source);
        let is_unit = kind == Some(Kind::Volume) || images && kind == Some(Kind::Image);
        if source.starts_with('.') {
            self.need_file(value, spot, source);
        } else if is_unit && !source.starts_with('/') {
            self.need_unit(value, spot, source);
        }
    }

    /// Checks `Network=`: a network, a `.network` file, or the network of another `.container`.
    pub(super) fn networks(&mut self, section: &str) {
        let unit = self.unit;
        for network in unit.all(section, "Network") {
            let (name, options) = network
                .text
                .split_once(':')
                .map_or((network.text, None), |(name, options)| {
                    (name, Some(options))
                });
            let spot = network.entry.spot_at(0, name.chars().count());
            match Kind::of(name) {
                Some(Kind::Network) => self.need_unit(&network, spot, name),
                Some(Kind::Container) => {
                    self.need_unit(&network, spot, name);
                    if options.is_some() {
                        let message = "options cannot be given when the network of another container is joined";
                        self.refuse(&network, network.spot(), message);
                    }
                    let other = self.set.units.get(name);
                    if other.is_some_and(|other| super::check::container_name(other).contains('%'))
                    {
                        let message = format!(
                            "only systemd knows the name of the container of `{name}`: set ContainerName= there"
                        );
                        self.refuse(&network, spot, message);
                    }
                }
                _ => {}
            }
        }
    }

    /// Checks `Pod=`: a `.pod` file.
    pub(super) fn pod(&mut self) {
        let unit = self.unit;
        let Some(pod) = unit.said("Container", "Pod") else {
            return;
        };
        if Kind::of(pod.text) == Some(Kind::Pod) {
            self.need_unit(&pod, pod.spot(), pod.text);
        } else {
            let message = format!("`{}` is not a `.pod` file", pod.text);
            self.refuse(&pod, pod.spot(), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_are_resolved_against_the_units_folder() {
        for (path, name) in [
            ("./web.env", Some("web.env")),
            ("web.env", Some("web.env")),
            ("./site/../web.env", Some("web.env")),
            (".", Some("")),
            ("../web.env", None),
            ("site/../../web.env", None),
        ] {
            assert_eq!(resolve(path).as_deref(), name, "{path}");
        }
    }
}
