//! `cargo xtask fuzz`: the targets in `fuzz/`, for a bounded time.
//!
//! It runs what cargo-fuzz builds, two at a time on two cores. What the fuzzer learns stays in `target/fuzz`; only the
//! inputs that are kept on purpose are in `fuzz/corpus`. A finding is an input under `fuzz/artifacts`.

use crate::{processes, processes::Process, progress, project, tools};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

/// What to fuzz, and for how long.
#[derive(Args)]
pub struct Options {
    /// How long each target runs, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// What the inputs follow from; without one, others each time.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    seed: u32,
    /// How many inputs each target tries at most; without one, as many as there is time for.
    #[arg(long, default_value_t = -1, hide_default_value = true)]
    runs: i32,
    /// The targets; all without one.
    targets: Vec<String>,
}

impl Options {
    /// All targets, with the same inputs each time: a test says something of the change that is tested.
    pub fn in_tests() -> Self {
        Self { seconds: 60, seed: 1, runs: 50_000, targets: vec![] }
    }
}

/// Builds and runs the targets. A finding is an error that tells how to replay it.
pub fn run(options: &Options) -> Result<()> {
    let all = targets()?;
    if let Some(unknown) = options.targets.iter().find(|target| !all.contains(target)) {
        bail!("no target {unknown}; there are {}", all.join(", "));
    }
    let chosen = if options.targets.is_empty() { &all } else { &options.targets };
    let programs = progress::step("Building the fuzz targets", build)?;
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    progress::step(&format!("Fuzzing {} targets, {} s each at most", chosen.len(), options.seconds), || {
        chosen.chunks(at_once).try_for_each(|some| {
            let running: Vec<Run> =
                some.iter().map(|target| Run::start(&programs, target, options)).collect::<Result<_>>()?;
            running.into_iter().try_for_each(Run::finish)
        })
    })
}

/// The files in `fuzz/fuzz_targets`.
fn targets() -> Result<Vec<String>> {
    let folder = project::root().join("fuzz/fuzz_targets");
    let files = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names: Vec<String> =
        files.flatten().filter_map(|file| Some(file.path().file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// Builds all targets, as optimised as users get them but with overflow checks, and gives the folder that they are in.
fn build() -> Result<PathBuf> {
    let target = processes::output("rustc", Command::new("rustc").args(["--print", "host-tuple"]))?;
    let folder = project::target().join("fuzz");
    let mut fuzz = Command::new(tools::program("cargo-fuzz")?);
    fuzz.current_dir(project::root().join("fuzz"));
    // Without a sanitizer, since there is no unsafe code of ours to look into, and a stable compiler will do.
    fuzz.args(["build", "--sanitizer", "none", "--target", target.trim(), "--target-dir"]).arg(&folder);
    processes::run("cargo fuzz build", &mut fuzz)?;
    Ok(folder.join(target.trim()).join("release"))
}

/// A target at work.
struct Run {
    target: String,
    program: PathBuf,
    process: Process,
    log: PathBuf,
}

impl Run {
    fn start(programs: &Path, target: &str, options: &Options) -> Result<Run> {
        let fuzz = project::root().join("fuzz");
        let learnt = project::target().join("fuzz/corpus").join(target);
        let artifacts = fuzz.join("artifacts").join(target);
        for folder in [&learnt, &artifacts] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let log = learnt.with_extension("log");
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let program = programs.join(target);
        let mut command = Command::new(&program);
        command
            .arg(learnt)
            .arg(fuzz.join("corpus").join(target))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg(format!("-dict={}", fuzz.join("words.dict").display()))
            .arg(format!("-max_total_time={}", options.seconds))
            .arg(format!("-seed={}", options.seed))
            .arg(format!("-runs={}", options.runs))
            // Of one input: a machine under load is slow, but nothing is that slow.
            .args(["-timeout=30", "-rss_limit_mb=1024"])
            .stdout(output.try_clone()?)
            .stderr(output);
        let process = Process::start(target, &mut command)?;
        Ok(Run { target: target.to_owned(), program, process, log })
    }

    fn finish(self) -> Result<()> {
        let status = self.process.wait(None)?;
        let log = String::from_utf8_lossy(&fs::read(&self.log)?).into_owned();
        if status.success() {
            let done = log.lines().rfind(|line| line.starts_with("Done ")).unwrap_or("done");
            progress::note(&format!("{}: {done}", self.target));
            return Ok(());
        }
        let panic: Vec<&str> =
            log.lines().skip_while(|line| !line.contains(" panicked at ")).take(6).collect();
        let input = log.lines().rev().find_map(|line| line.split_once("Test unit written to "));
        match input {
            Some((_, input)) => bail!(
                "{target} found an input that breaks a property:\n{panic}\nto replay it: {program} {input}\nonce it is \
                 mended, keep the input: mv {input} fuzz/corpus/{target}/what-it-shows.txt",
                target = self.target,
                panic = panic.join("\n"),
                program = self.program.display(),
            ),
            None => bail!("{} failed ({status}); its output is in {}", self.target, self.log.display()),
        }
    }
}
