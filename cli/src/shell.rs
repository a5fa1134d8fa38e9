//! `atoll completions` and `atoll man`: what a shell and a reader need, made from the commands themselves.

use std::{io, path::PathBuf};

use clap::{Args, Command, ValueHint};
use clap_complete::Shell;

use crate::exit::{Exit, Failed};

/// What a shell needs to complete commands and options.
#[derive(Args)]
#[command(after_help = "\
Examples:
  atoll completions bash > ~/.local/share/bash-completion/completions/atoll
  atoll completions zsh > ~/.zfunc/_atoll            (with ~/.zfunc in $fpath)
  atoll completions fish > ~/.config/fish/completions/atoll.fish")]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// The manual, as man pages.
#[derive(Args)]
#[command(after_help = "\
Examples:
  atoll man | man -l -                               the first page
  atoll man ~/.local/share/man/man1                  a page for each command: man atoll-testnet-up")]
pub struct ManArgs {
    /// Where to write a page for each command [default: the first page, to the standard output]
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: Option<PathBuf>,
}

/// Prints the script for a shell.
pub fn completions(args: CompletionsArgs, mut program: Command) -> Result<(), Failed> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "atoll", &mut script);
    print(&script)
}

/// Prints the first page, or writes all pages into a folder.
pub fn man(args: ManArgs, program: Command) -> Result<(), Failed> {
    let Some(folder) = args.folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(program).render(&mut page).expect("memory does not fail");
        return print(&page);
    };
    let written =
        std::fs::create_dir_all(&folder).and_then(|()| clap_mangen::generate_to(program, &folder));
    written.map_err(|error| {
        let what = format!("cannot write into {}: {error}", folder.display());
        Failed::new(Exit::Refused, what)
    })
}

/// To the standard output, whose reader may have left.
fn print(bytes: &[u8]) -> Result<(), Failed> {
    match io::Write::write_all(&mut io::stdout(), bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failed::new(Exit::Other, format!("cannot print: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
