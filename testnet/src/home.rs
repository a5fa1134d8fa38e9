//! Where testnets live on this machine, and how a name becomes the profile of a cluster.
//!
//! ```text
//! $ATOLL_HOME            default $XDG_STATE_HOME/atoll, else ~/.local/state/atoll
//! ├── current            name of the testnet started last; `ATOLL_TESTNET` speaks louder
//! └── testnets
//!     ├── dev            a folder with everything of that testnet
//!     └── big ─▶ /data   made with --dir: a link to where it lives
//! ```

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use crate::{files, files::FileError};

/// The folder that knows all testnets of this user.
#[derive(Clone, Debug)]
pub struct Home {
    folder: PathBuf,
    /// The testnet that is meant where none is named.
    meant: Option<String>,
}

/// Why a name leads nowhere. Each text ends with the mend.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Neither `ATOLL_HOME` nor `HOME` is set.
    #[error(
        "no home for testnets: neither ATOLL_HOME nor HOME is set; set one: export ATOLL_HOME=DIR"
    )]
    Nowhere,
    /// Nothing was ever started here, or all of it was removed.
    #[error("no testnet is known; start one: atoll testnet up")]
    NoneKnown,
    /// Several are known, and the one started last was removed.
    #[error("the testnet started last is gone; name one of: {}", names.join(", "))]
    NoneCurrent {
        /// Those that are left.
        names: Vec<String>,
    },
    /// No testnet of that name.
    #[error("no testnet is called {name}; {}", known(names))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Those there are.
        names: Vec<String>,
    },
    /// There was one until now.
    #[error("the testnet {name} was removed")]
    Removed {
        /// Its name.
        name: String,
    },
    /// A name that cannot be one.
    #[error(
        "{name:?} is no name for a testnet: use up to {NAME_BYTES_MAX} letters, digits, `-` and `_`, \
         beginning with a letter or digit"
    )]
    BadName {
        /// What was given.
        name: String,
    },
    /// The profile is not there.
    #[error("there is no cluster profile {}; name a testnet or an existing file", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// The folder cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The profile of a cluster: of the testnet with that name, the file itself, or the testnet started last.
///
/// What contains `/` or ends in `.toml` is a file.
///
/// # Errors
/// See [`HomeError`].
pub fn resolve(cluster: Option<&str>) -> Result<PathBuf, HomeError> {
    match cluster.and_then(as_file) {
        Some(file) => existing(file),
        None => Home::find()?.resolve(cluster),
    }
}

impl Home {
    /// The home that the environment names.
    ///
    /// # Errors
    /// [`HomeError::Nowhere`].
    pub fn find() -> Result<Home, HomeError> {
        let set =
            |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = set("ATOLL_HOME")
            .or_else(|| set("XDG_STATE_HOME").map(|state| state.join("atoll")))
            .or_else(|| set("HOME").map(|home| home.join(".local/state/atoll")))
            .ok_or(HomeError::Nowhere)?;
        let meant = env::var("ATOLL_TESTNET").ok().filter(|name| !name.is_empty());
        Ok(Home { meant, ..Home::at(&folder)? })
    }

    /// A home in this folder, which need not exist yet.
    ///
    /// # Errors
    /// [`HomeError::File`] if the current folder is gone and the path is relative to it.
    pub fn at(folder: &Path) -> Result<Home, HomeError> {
        // nodes are recognised by the absolute path of their configuration
        let folder = std::path::absolute(folder).map_err(FileError::of("find", folder))?;
        Ok(Home { folder, meant: None })
    }

    /// Where it is. It need not exist yet.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// As the free function [`resolve`], in this home.
    ///
    /// # Errors
    /// See [`HomeError`].
    pub fn resolve(&self, cluster: Option<&str>) -> Result<PathBuf, HomeError> {
        match cluster {
            None => Ok(self.entry(&self.pick(None)?)?.join(PROFILE)),
            Some(text) => match as_file(text) {
                Some(file) => existing(file),
                None => match self.pick(Some(text)) {
                    Ok(name) => Ok(self.entry(&name)?.join(PROFILE)),
                    // a file in the current folder may have any name
                    Err(_) if Path::new(text).is_file() => Ok(PathBuf::from(text)),
                    Err(error) => Err(error),
                },
            },
        }
    }

    /// The testnet that `ATOLL_TESTNET` names for whoever names none; it need not exist.
    pub fn meant(&self) -> Option<&str> {
        self.meant.as_deref()
    }

    /// The testnet that is meant: the one named, else that of `ATOLL_TESTNET`, else the one started last, else the only one.
    ///
    /// # Errors
    /// See [`HomeError`].
    pub fn pick(&self, name: Option<&str>) -> Result<String, HomeError> {
        let names = self.names()?;
        let known = |name: &String| names.contains(name);
        match name.or(self.meant()).map(str::to_owned) {
            Some(name) if known(&name) => Ok(name),
            Some(name) if !names.is_empty() => Err(HomeError::Unknown { name, names }),
            Some(_) => Err(HomeError::NoneKnown),
            None => match (self.current()?.filter(known), names.as_slice()) {
                (Some(name), _) => Ok(name),
                (None, []) => Err(HomeError::NoneKnown),
                (None, [only]) => Ok(only.clone()),
                (None, _) => Err(HomeError::NoneCurrent { names }),
            },
        }
    }

    /// All testnets, by name.
    ///
    /// # Errors
    /// [`HomeError::File`].
    pub fn names(&self) -> Result<Vec<String>, HomeError> {
        let folder = self.folder.join("testnets");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(FileError::of("read", &folder)(error).into()),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(FileError::of("read", &folder))?;
            if entry.path().join(crate::asked::FILE).is_file() {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The place of a testnet among all: its folder, or the link to it. It need not exist.
    ///
    /// # Errors
    /// [`HomeError::BadName`].
    pub fn entry(&self, name: &str) -> Result<PathBuf, HomeError> {
        check_name(name)?;
        Ok(self.folder.join("testnets").join(name))
    }

    /// The name of the testnet started last; it may be gone.
    ///
    /// # Errors
    /// [`HomeError::File`].
    pub fn current(&self) -> Result<Option<String>, HomeError> {
        Ok(files::read(&self.folder.join("current"))?.map(|text| text.trim().to_owned()))
    }

    /// Gives the place of the testnet started last back to the one that had it before a testnet which is leaving, unless another
    /// one was started meanwhile.
    ///
    /// # Errors
    /// [`HomeError::File`].
    pub fn give_back_current(&self, leaving: &str, before: Option<&str>) -> Result<(), HomeError> {
        match (self.current()?, before) {
            (Some(current), Some(before)) if current == leaving => self.set_current(before),
            (Some(current), None) if current == leaving => {
                Ok(files::remove(&self.folder.join("current"))?)
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// From now on a testnet that is not named is this one.
    ///
    /// # Errors
    /// [`HomeError::File`].
    pub fn set_current(&self, name: &str) -> Result<(), HomeError> {
        Ok(files::write(&self.folder.join("current"), &format!("{name}\n"), files::PUBLIC)?)
    }
}

/// The profile within a testnet's folder.
pub(crate) const PROFILE: &str = "profile.toml";

const NAME_BYTES_MAX: usize = 64;

fn check_name(name: &str) -> Result<(), HomeError> {
    let mut bytes = name.bytes();
    let begins = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if begins && rest && name.len() <= NAME_BYTES_MAX {
        Ok(())
    } else {
        Err(HomeError::BadName { name: name.to_owned() })
    }
}

fn as_file(text: &str) -> Option<&Path> {
    (text.contains('/') || text.ends_with(".toml")).then(|| Path::new(text))
}

fn existing(file: &Path) -> Result<PathBuf, HomeError> {
    if file.is_file() {
        Ok(file.to_owned())
    } else {
        Err(HomeError::NoFile { path: file.to_owned() })
    }
}

fn known(names: &[String]) -> String {
    format!("known are: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home_with(names: &[&str]) -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path()).unwrap();
        for name in names {
            let entry = home.entry(name).unwrap();
            fs::create_dir_all(&entry).unwrap();
            fs::write(entry.join(crate::asked::FILE), "").unwrap();
        }
        (folder, home)
    }

    /// Without a name it is the testnet started last, then the only one; and each way to have none says what to do.
    #[test]
    fn the_testnet_started_last_is_meant() {
        let (_folder, home) = home_with(&[]);
        let error = home.resolve(None).unwrap_err().to_string();
        assert_eq!(error, "no testnet is known; start one: atoll testnet up");

        let (folder, home) = home_with(&["dev"]);
        let dev = folder.path().join("testnets/dev/profile.toml");
        assert_eq!(home.resolve(None).unwrap(), dev);

        let (folder, home) = home_with(&["dev", "two"]);
        assert!(matches!(home.resolve(None), Err(HomeError::NoneCurrent { .. })));
        home.set_current("two").unwrap();
        let two = folder.path().join("testnets/two/profile.toml");
        assert_eq!(home.resolve(None).unwrap(), two);
        home.set_current("removed").unwrap();
        assert!(matches!(home.resolve(None), Err(HomeError::NoneCurrent { .. })));
    }

    /// Who leaves gives the place back, and not if it has another by now.
    #[test]
    fn the_place_of_the_last_one_is_given_back() {
        let (_folder, home) = home_with(&["dev", "two", "guest"]);
        for (current, before, after) in [
            ("guest", Some("dev"), Some("dev")),
            ("guest", None, None),
            ("two", Some("dev"), Some("two")),
            ("two", None, Some("two")),
        ] {
            home.set_current(current).unwrap();
            home.give_back_current("guest", before).unwrap();
            assert_eq!(home.current().unwrap().as_deref(), after);
        }
    }

    /// A name is looked up, a path is taken as it is, and a wrong one says what there is.
    #[test]
    fn names_and_files() {
        let (folder, home) = home_with(&["dev"]);
        let dev = folder.path().join("testnets/dev/profile.toml");
        assert_eq!(home.resolve(Some("dev")).unwrap(), dev);
        let error = home.resolve(Some("prod")).unwrap_err().to_string();
        assert_eq!(error, "no testnet is called prod; known are: dev");
        let file = folder.path().join("elsewhere.toml");
        assert!(matches!(home.resolve(file.to_str()), Err(HomeError::NoFile { .. })));
        fs::write(&file, "").unwrap();
        assert_eq!(home.resolve(file.to_str()).unwrap(), file);
    }

    /// A name is a folder's name, never a path and never a file of ours.
    #[test]
    fn bad_names() {
        let (_folder, home) = home_with(&[]);
        for name in ["", ".", "..", "a/b", "-x", "dev.toml", "ä", &"x".repeat(65)] {
            assert!(home.entry(name).is_err(), "{name:?}");
        }
        assert!(home.entry("Dev-2_x").is_ok());
    }
}
