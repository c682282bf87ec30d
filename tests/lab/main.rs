//! `backstay-lab`: the lab by hand. Builds images, opens a shell on a running host, removes what was left, says what is missing.
#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value read by a name that it lacks gives null"
)]
#![expect(
    clippy::print_stdout,
    reason = "this is the command line of the lab; it talks to people"
)]

mod bench;
mod demo;

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Instant;

use demo::Ending;
use lab::{Distro, Doing, Fault, Image, Lab, Result, machine, record};

const USAGE: &str = "\
usage: backstay-lab COMMAND
  doctor        say what this machine lacks for the lab
  demo [--keep] show the whole path on a controller and a server; --keep leaves it running
  bench         measure backup and restore beside restic
  images        build the images of hosts that are not built yet
  up [RELEASE]  boot one host, bookworm or trixie, until the end of input
  shell HOST    open a shell on a running host; `shell` alone lists them
  clean         remove labs whose process is dead";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["doctor"] => doctor(),
        ["demo"] => demo::show(Ending::Remove),
        ["demo", "--keep"] => demo::show(Ending::Keep),
        ["bench"] => bench::run(),
        ["images"] => images(),
        ["up"] => up("bookworm"),
        ["up", release] => up(release),
        ["shell"] => list_hosts(),
        ["shell", host] => shell(host),
        ["clean"] => clean(),
        _ => {
            println!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            println!("Error: {fault:?}");
            ExitCode::FAILURE
        }
    }
}

fn doctor() -> Result<()> {
    let missing = machine::missing();
    if missing.is_empty() {
        println!("the lab can run here");
        return Ok(());
    }
    Err(Fault::new(format!(
        "the lab cannot run here; missing:\n  {}",
        missing.join("\n  ")
    )))
}

fn images() -> Result<()> {
    for distro in Distro::ALL {
        let start = Instant::now();
        let image = Image::ensure(distro)?;
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{}: {} ({seconds:.1} s)",
            distro.suite(),
            image.root().display()
        );
    }
    Ok(())
}

fn up(release: &str) -> Result<()> {
    let distro = Distro::ALL
        .into_iter()
        .find(|distro| distro.suite() == release)
        .doing(|| format!("booting {release}: only bookworm and trixie are known"))?;
    let lab = Lab::new()?;
    let start = Instant::now();
    let host = lab.host(release).distro(distro).boot()?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "lab {}: {release} is up after {seconds:.1} s; end of input ends it",
        lab.id()
    );
    io::copy(&mut io::stdin(), &mut io::sink()).doing(|| "waiting for the end of input")?;
    host.power_off()
}

fn clean() -> Result<()> {
    for id in record::reap_dead()? {
        println!("removed the lab {id}");
    }
    Ok(())
}

fn list_hosts() -> Result<()> {
    for host in record::running_hosts()? {
        println!("{} (lab {}, {})", host.name, host.lab, host.namespace());
    }
    Ok(())
}

fn shell(name: &str) -> Result<()> {
    let found = record::running_hosts()?
        .into_iter()
        .find(|host| host.name == name || format!("{}-{}", host.lab, host.name) == name)
        .doing(|| {
            format!("finding a running host called {name}; `backstay-lab shell` lists them")
        })?;
    let words = lab::enter_words(found.leader);
    let (program, rest) = words.split_first().doing(|| "opening a shell")?;
    // Replaces this process; comes back only when it could not.
    Err(Command::new(program).args(rest).arg("bash").exec())
        .doing(|| format!("opening a shell on {name}"))
}
