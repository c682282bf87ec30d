//! Manual pages and shell completion, made from the command line's own description when the
//! package is built.

use std::fs;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use model::Exit;

use crate::problem::Problem;
use crate::screen::Screen;

/// The section of the manual: administration.
const SECTION: &str = "8";

/// Writes one page for the program and one for each verb.
///
/// # Errors
///
/// When the directory cannot be written.
pub fn man(program: Command, directory: &Path) -> Result<Exit, Problem> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    write_page(&program, directory)?;
    Ok(Exit::Done)
}

fn write_page(command: &Command, directory: &Path) -> Result<(), Problem> {
    let page = Man::new(command.clone())
        .section(SECTION)
        .manual("System Administration")
        .source("Backstay");
    let path = directory.join(page.get_filename());
    let failed = |error: std::io::Error| {
        Problem::new(Exit::Failed, format!("cannot write {}", path.display())).because(&error)
    };
    let mut text = Vec::new();
    page.render(&mut text).map_err(failed)?;
    fs::write(&path, text).map_err(failed)?;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        write_page(verb, directory)?;
    }
    Ok(())
}

/// Writes the completion script of one shell.
///
/// # Errors
///
/// When standard output takes no more.
pub fn completions(
    mut program: Command,
    shell: Shell,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    let name = program.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut program, name, &mut text);
    screen.bytes(&text)?;
    Ok(Exit::Done)
}
