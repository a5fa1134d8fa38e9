//! Files that are written whole or not at all, and never with wider permissions than they shall have.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use atoll_transport::small_file::{self, VIEW_BYTES_MAX};

/// A file or folder could not be handled.
#[derive(Debug, thiserror::Error)]
#[error("cannot {deed} {}: {source}", path.display())]
pub struct FileError {
    /// What was to be done: `read`, `write` and so on.
    pub deed: &'static str,
    /// With what.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

impl FileError {
    /// Turns an error of the system into one that says what was to be done with what.
    pub fn of(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
        let path = path.to_owned();
        move |source| FileError { deed, path, source }
    }
}

/// For everybody to read.
pub const PUBLIC: u32 = 0o644;

/// For its owner only.
pub const SECRET: u32 = 0o600;

/// Writes a file beside its place, makes it durable and moves it there.
pub fn write(path: &Path, text: &str, mode: u32) -> Result<(), FileError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let write = || {
        // what a crash left there could have wider permissions
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(folder_of(path))?.sync_all()
    };
    write().map_err(FileError::of("write", path))
}

/// The folder a file lies in; that of a bare name is the current one.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        Some(_) | None => Path::new("."),
    }
}

/// The text of a file, `None` if it is not there.
pub fn read(path: &Path) -> Result<Option<String>, FileError> {
    match small_file::read_text(path, VIEW_BYTES_MAX) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::of("read", path)(error)),
    }
}

/// Makes a folder for its owner only, and those above it as the system likes.
pub fn make_folder(path: &Path) -> Result<(), FileError> {
    let make = || {
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            made => made,
        }
    };
    make().map_err(FileError::of("make the folder", path))
}

/// Removes a file or a folder with all that is in it; it need not be there.
pub fn remove(path: &Path) -> Result<(), FileError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(FileError::of("remove", path)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A secret is never readable by others, also if a crash left a wide file in the way; writing again replaces.
    #[test]
    fn a_secret_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(folder.path().join("secret.new"), "left over").unwrap();
        for text in ["first", "second"] {
            write(&path, text, SECRET).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(read(&path).unwrap().as_deref(), Some(text));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// A bare name, as people type it, lies in the current folder.
    #[test]
    fn a_bare_name_lies_here() {
        assert_eq!(folder_of(Path::new("n4.join")), Path::new("."));
        assert_eq!(folder_of(Path::new("x/n4.join")), Path::new("x"));
    }

    /// Removing what is not there is done already; a link is removed, and not what it points to.
    #[test]
    fn removing() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        make_folder(&target.join("deep")).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        remove(&link).unwrap();
        assert!(target.join("deep").is_dir());
        remove(&target).unwrap();
        remove(&target).unwrap();
        assert!(!target.exists());
    }
}
