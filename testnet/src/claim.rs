//! A place for a new testnet: in the home, or where `--dir` says with a link in the home.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::{
    asked::FILE,
    files::{self, FileError},
    home::{Home, HomeError},
    testnet::canonical,
};

/// Why there is no place.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The name.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// It lives elsewhere.
    #[error("--dir {} contradicts where testnet {name} lives: {}", wished.display(), lives.display())]
    LivesElsewhere {
        /// The testnet.
        name: String,
        /// What was asked for.
        wished: PathBuf,
        /// Where it is.
        lives: PathBuf,
    },
    /// The folder holds something else, which could get lost when the testnet is removed.
    #[error("--dir {} is not empty", folder.display())]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
}

/// Makes sure that the folder of a testnet exists and that its name leads there. Gives it without links.
///
/// A folder that was claimed before is claimed again: whoever gets its lock goes on with it.
pub(crate) fn claim(home: &Home, name: &str, wished: Option<&Path>) -> Result<PathBuf, ClaimError> {
    let entry = home.entry(name)?;
    let Some(wished) = wished else {
        if entry.is_symlink() && !entry.exists() {
            files::remove(&entry)?; // what it led to was removed by hand
        }
        if !entry.exists() {
            files::make_folder(&entry)?;
        }
        return Ok(canonical(&entry)?);
    };
    if wished.exists() && !entry.join(FILE).exists() && !is_vacant(wished)? {
        return Err(ClaimError::NotEmpty { folder: wished.to_owned() });
    }
    if !entry.join(FILE).exists() {
        // left over from an attempt that came to nothing; a folder with anything in it stays
        let _ = fs::remove_dir(&entry);
        if entry.is_symlink() {
            files::remove(&entry)?;
        }
    }
    if !entry.exists() {
        files::make_folder(wished)?;
        let target = canonical(wished)?;
        let above = entry.parent().expect("an entry lies in the home");
        fs::create_dir_all(above).map_err(FileError::of("make the folder", above))?;
        symlink(&target, &entry).map_err(FileError::of("link", &entry))?;
    }
    let lives = canonical(&entry)?;
    if fs::canonicalize(wished).is_ok_and(|wished| wished == lives) {
        Ok(lives)
    } else {
        Err(ClaimError::LivesElsewhere { name: name.to_owned(), wished: wished.to_owned(), lives })
    }
}

/// Whether nothing is in a folder but the lock of an attempt that came to nothing.
fn is_vacant(folder: &Path) -> Result<bool, FileError> {
    let vacant = || -> io::Result<bool> {
        for entry in fs::read_dir(folder)? {
            if entry?.file_name() != "lock" {
                return Ok(false);
            }
        }
        Ok(true)
    };
    vacant().map_err(FileError::of("read", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without `--dir` it is a folder in the home; with it the name leads to that folder, now and the next time, and
    /// nowhere else.
    #[test]
    fn places() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
        let home = Home::at(&at("home")).unwrap();
        assert_eq!(claim(&home, "dev", None).unwrap(), at("home/testnets/dev"));
        assert_eq!(claim(&home, "dev", None).unwrap(), at("home/testnets/dev"));

        let big = at("big");
        assert_eq!(claim(&home, "big", Some(&big)).unwrap(), big);
        fs::write(big.join(FILE), "").unwrap();
        assert_eq!(claim(&home, "big", None).unwrap(), big);
        assert_eq!(claim(&home, "big", Some(&big)).unwrap(), big);
        let other = claim(&home, "big", Some(&at("other")));
        assert!(matches!(other, Err(ClaimError::LivesElsewhere { .. })));
        let second = claim(&home, "second", Some(&big));
        assert!(matches!(second, Err(ClaimError::NotEmpty { .. })));
    }

    /// A folder that was removed by hand leaves a name that leads nowhere: it can be used again.
    #[test]
    fn a_link_to_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(&folder.path().join("home")).unwrap();
        let big = folder.path().join("big");
        for wished in [Some(big.as_path()), None] {
            claim(&home, "big", Some(&big)).unwrap();
            fs::remove_dir(&big).unwrap();
            assert!(home.entry("big").unwrap().is_symlink());
            assert!(claim(&home, "big", wished).unwrap().is_dir());
        }
    }
}
