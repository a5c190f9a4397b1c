//! The socket of the admin API.

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::UnixListener;

use super::DEFAULT_SOCKET;
use crate::serve::ServeError;

/// Who may open the socket. Whoever may controls the fleet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// The server's user and root.
    #[default]
    User,
    /// Also the server's group.
    Group,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::User => 0o600,
            Self::Group => 0o660,
        }
    }
}

/// Listens on `asked`; by default on [`DEFAULT_SOCKET`] where that can be created, else on `data/admin.sock`.
pub fn listen(
    asked: Option<&Path>,
    data: &Path,
    access: Access,
) -> Result<(UnixListener, PathBuf), ServeError> {
    if let Some(path) = asked {
        return bind(path, access);
    }
    match bind(Path::new(DEFAULT_SOCKET), access) {
        Err(ServeError::Listen(_, error))
            if matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotFound
            ) =>
        {
            bind(&data.join("admin.sock"), access)
        }
        bound => bound,
    }
}

fn bind(path: &Path, access: Access) -> Result<(UnixListener, PathBuf), ServeError> {
    let fail = |error| ServeError::Listen(path.display().to_string(), error);
    // a client would resolve a relative path against another directory
    let path = std::path::absolute(path).map_err(fail)?;
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        std::fs::DirBuilder::new()
            .mode(match access {
                Access::User => 0o700,
                Access::Group => 0o750,
            })
            .create(directory)
            .map_err(fail)?;
    }
    remove_stale(&path).map_err(fail)?;
    let listener = UnixListener::bind(&path).map_err(fail)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(access.mode()))
        .map_err(fail)?;
    Ok((listener, path))
}

/// Removes a socket that an earlier server left. A socket that answers is in use and stays, and so does anything that is not
/// a socket, because connecting to a regular file fails just as connecting to a dead socket does.
fn remove_stale(path: &Path) -> std::io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(ErrorKind::AlreadyExists.into());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The user at the other end, for events.
#[derive(Debug, Clone)]
pub(super) struct Peer(pub(super) String);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let uid = stream.io().peer_cred().map(|credentials| credentials.uid());
        Self(match uid {
            Ok(0) => "root".to_owned(),
            Ok(uid) => format!("user {uid}"),
            Err(_) => "a user".to_owned(),
        })
    }
}
