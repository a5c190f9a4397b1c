//! Why the host did not do what it was asked, and what the server is told of it.

use flotta_bundle::{Code, DevicePath, Problem, code};

/// Why the host did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// A file cannot be read, written or removed.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: DevicePath,
        /// The reason.
        why: String,
    },
    /// A file cannot be written or removed, because its file system is mounted read-only.
    #[error("{path}: {why}")]
    ReadOnly {
        /// The file.
        path: DevicePath,
        /// The reason, as the system gives it.
        why: String,
    },
    /// Podman cannot use the storage for images and containers.
    #[error("{0}")]
    Storage(String),
    /// The disk is full, or a quota is used up.
    #[error("{0}")]
    NoSpace(String),
    /// Anything else, as the other program says it.
    #[error("{0}")]
    Other(String),
}

impl BackendError {
    /// The problem to report for a file.
    pub(crate) fn of_file(&self) -> Problem {
        let of = |code: Code, path: &DevicePath, why: &String| {
            Problem::new(code, path.as_str())
                .about(path.as_str())
                .with_detail(why)
        };
        match self {
            Self::ReadOnly { path, why } => {
                let folder = path.as_str().rsplit_once('/');
                let folder = folder.map_or("/etc", |(folder, _)| folder);
                of(code::READ_ONLY, path, why).with_help(format!(
                    "see what mounted it: findmnt -T {folder}; the agent goes on by itself once it can be written"
                ))
            }
            Self::File { path, why } => of(code::FILE_FAILED, path, why),
            other => Problem::new(code::FILE_FAILED, other.to_string()),
        }
    }

    /// The problem to report for a unit that systemd cannot be asked about.
    pub(crate) fn of_unit(&self, unit: &str) -> Problem {
        Problem::new(code::BACKEND, unit)
            .about(unit)
            .with_detail(self.to_string())
    }
}
