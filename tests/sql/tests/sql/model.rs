//! What the functions should do, in a few lines of plain Rust: one team, its jobs and their calls, one operation after another.

/// An operation on the team. Jobs and calls are numbered in the order in which they were opened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation {
    CreateJob,
    OpenCall {
        job: usize,
    },
    /// With so many tokens.
    SettleCall {
        call: usize,
        status: &'static str,
        tokens: i64,
        last: bool,
    },
    CompleteJob {
        job: usize,
        status: &'static str,
    },
    AddCredits {
        amount: i64,
    },
    GetBalance,
    Sweep,
    /// Not a function: the job's or the call's deadline passes.
    JobDeadlinePasses {
        job: usize,
    },
    CallDeadlinePasses {
        call: usize,
    },
}

/// What an operation answers, as far as the model knows it.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Done,
    Refused { sqlstate: &'static str, message_ends: String },
    Settled(bool),
    Balance { allocated: i64, used: i64, held: i64 },
    Completed(Completion),
}

/// What completing a job answered, and answers again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Completion {
    pub total_calls: i64,
    pub successful_calls: i64,
    pub failed_calls: i64,
    pub total_tokens: i64,
    pub credit_applied: bool,
    pub credits_remaining: i64,
}

#[derive(Debug, Clone)]
pub struct Job {
    pub status: &'static str,
    pub overdue: bool,
    pub completion: Option<Completion>,
}

#[derive(Debug, Clone)]
pub struct Call {
    pub job: usize,
    pub status: &'static str,
    pub overdue: bool,
    pub settled: bool,
    pub tokens: i64,
}

/// The team.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub allocated: i64,
    pub used: i64,
    pub held: i64,
    /// How far the available credits may fall.
    pub floor: Option<i64>,
    pub jobs: Vec<Job>,
    pub calls: Vec<Call>,
}

impl Job {
    fn is_open(&self) -> bool {
        ["pending", "in_progress"].contains(&self.status)
    }
}

impl Model {
    /// Does it and says what the answer has to be.
    pub fn apply(&mut self, operation: Operation) -> Outcome {
        match operation {
            Operation::CreateJob => self.create_job(),
            Operation::OpenCall { job } => self.open_call(job),
            Operation::SettleCall { call, status, tokens, last } => {
                self.settle_call(call, status, tokens, last)
            }
            Operation::CompleteJob { job, status } => self.complete_job(job, status),
            Operation::AddCredits { amount } => {
                self.allocated += amount;
                Outcome::Done
            }
            Operation::GetBalance => {
                self.sweep();
                Outcome::Balance { allocated: self.allocated, used: self.used, held: self.held }
            }
            Operation::Sweep => {
                self.sweep();
                Outcome::Done
            }
            Operation::JobDeadlinePasses { job } => {
                self.jobs[job].overdue = true;
                Outcome::Done
            }
            Operation::CallDeadlinePasses { call } => {
                self.calls[call].overdue = true;
                Outcome::Done
            }
        }
    }

    fn sweep(&mut self) {
        for call in self.calls.iter_mut().filter(|call| call.status == "open" && call.overdue) {
            call.status = "abandoned";
        }
        for job in self.jobs.iter_mut().filter(|job| job.is_open() && job.overdue) {
            job.status = "expired";
            self.held -= 1;
        }
    }

    fn create_job(&mut self) -> Outcome {
        // A refused statement leaves no trace, not even of the sweep that it began with.
        let before = self.clone();
        self.sweep();
        let available = self.allocated - self.used - self.held;
        if self.floor.is_some_and(|floor| available - 1 < floor) {
            *self = before;
            return refused("LJ005", format!("Required: 1, Available: {available}"));
        }
        self.held += 1;
        self.jobs.push(Job { status: "pending", overdue: false, completion: None });
        Outcome::Done
    }

    /// The refusal, if the job is over.
    fn over(&self, job: usize) -> Option<Outcome> {
        let Job { status, overdue, .. } = self.jobs[job];
        let ended = if self.jobs[job].is_open() { overdue.then_some("expired") } else { Some(status) };
        ended.map(|status| refused("LJ008", format!("is already {status}")))
    }

    fn open_call(&mut self, job: usize) -> Outcome {
        if let Some(refusal) = self.over(job) {
            return refusal;
        }
        self.jobs[job].status = "in_progress";
        self.calls.push(Call { job, status: "open", overdue: false, settled: false, tokens: 0 });
        Outcome::Done
    }

    fn settle_call(&mut self, call: usize, status: &'static str, tokens: i64, last: bool) -> Outcome {
        let call = &mut self.calls[call];
        if call.settled {
            return Outcome::Settled(false);
        }
        if call.status == "open" {
            call.status = status;
        }
        (call.settled, call.tokens) = (last, tokens);
        Outcome::Settled(true)
    }

    fn complete_job(&mut self, job: usize, status: &'static str) -> Outcome {
        if let (true, Some(completion)) = (self.jobs[job].status == status, self.jobs[job].completion) {
            return Outcome::Completed(completion);
        }
        if let Some(refusal) = self.over(job) {
            return refusal;
        }
        for call in self.calls.iter_mut().filter(|call| call.job == job && call.status == "open") {
            call.status = "cancelled";
        }
        let calls: Vec<&Call> = self.calls.iter().filter(|call| call.job == job).collect();
        let count = |status| calls.iter().filter(|call| call.status == status).count() as i64;
        let credit_applied = status == "completed" && count("failed") == 0;
        self.held -= 1;
        self.used += i64::from(credit_applied);
        let completion = Completion {
            total_calls: calls.len() as i64,
            successful_calls: count("succeeded"),
            failed_calls: count("failed"),
            total_tokens: calls.iter().map(|call| call.tokens).sum(),
            credit_applied,
            credits_remaining: self.allocated - self.used,
        };
        self.jobs[job] = Job { status, completion: Some(completion), ..self.jobs[job] };
        Outcome::Completed(completion)
    }
}

fn refused(sqlstate: &'static str, message_ends: String) -> Outcome {
    Outcome::Refused { sqlstate, message_ends }
}
