//! A short randomised run with faults: see `cargo xtask soak` for a longer one.

use soak::{
    driver::{Options, Soak, Weather},
    report::Report,
    world::World,
};
use std::time::{Duration, Instant};

/// `SOAK_SEED` repeats the choices of another run.
fn options() -> Options {
    let seed = std::env::var("SOAK_SEED").ok().map(|seed| seed.parse().expect("SOAK_SEED: a number"));
    seed.map_or_else(Options::default, |seed| Options { seed, ..Options::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_while_everything_fails_and_after_it() {
    let options = options();
    println!("seed {}", options.seed);
    let world = World::start_shaky(None).await.expect("a world");
    let mut soak = Soak::new(world, options).await.expect("a soak");
    let began = Instant::now();
    let weather =
        Weather { storm: Duration::from_secs(10), calm: Duration::from_secs(20), ..Weather::default() };
    let judged = soak.round(weather).await.expect("a round");
    let mut report = Report::new(options.seed);
    report.add(judged, began.elapsed());
    println!("{report}");
    assert!(report.violations().is_empty(), "violated");
}
