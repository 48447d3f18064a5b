//! A TCP proxy whose connections fail on demand.

use crate::RUNTIME;
use anyhow::Result;
use private_postgres::ports;
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::timeout,
};

/// What a proxy does with its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Pass,
    /// Passes everything on, each piece so much later, both ways.
    Delay(Duration),
    /// Accepts connections and passes nothing, on old ones neither. What was sent meanwhile passes afterwards.
    Stall,
    /// Nobody listens: new connections are refused. Old ones go on.
    Refuse,
    /// New connections are accepted and reset. Old ones go on.
    Reset,
    /// Whoever wants a new connection waits for it, as with an address that no packet reaches. Old ones go on. Only on
    /// Linux.
    Ignore,
}

/// A way through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client, which connected, to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// A proxy on a port of 127.0.0.1 in front of another one. Dropping it cuts its connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: watch::Sender<State>,
    /// The mode that new connections meet by now.
    accepting: watch::Sender<Mode>,
    passed: [AtomicU64; 2],
    pieces: [AtomicU64; 2],
    round_trips: AtomicU64,
    cut: AtomicU64,
}

#[derive(Clone)]
struct State {
    target: SocketAddr,
    mode: Mode,
    /// How often all connections were to be cut at once.
    cuts: u64,
    plan: Option<Plan>,
    dropped: bool,
}

/// A planned cut.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Plan {
    number: u64,
    direction: Direction,
    bytes: u64,
    once: bool,
}

impl Proxy {
    /// Starts one in front of `target`.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", ports::free()?))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = State { target, mode: Mode::Pass, cuts: 0, plan: None, dropped: false };
        let shared = Arc::new(Shared {
            state: watch::Sender::new(state),
            accepting: watch::Sender::new(Mode::Pass),
            passed: Default::default(),
            pieces: Default::default(),
            round_trips: AtomicU64::new(0),
            cut: AtomicU64::new(0),
        });
        RUNTIME.spawn(serve(listener, shared.clone()));
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it does; done when it does.
    pub async fn set(&self, mode: Mode) {
        self.shared.state.send_modify(|state| state.mode = mode);
        let mut accepting = self.shared.accepting.subscribe();
        accepting.wait_for(|accepting| *accepting == mode).await.expect("the proxy runs");
    }

    /// Sends new connections to another server.
    pub fn set_target(&self, target: SocketAddr) {
        self.shared.state.send_modify(|state| state.target = target);
    }

    /// Resets every open connection.
    pub fn cut(&self) {
        self.shared.state.send_modify(|state| state.cuts += 1);
    }

    /// Cuts the first connection on which from now on so many bytes have passed in that direction: exactly these have.
    pub fn cut_once_after(&self, direction: Direction, bytes: u64) {
        self.plan(direction, bytes, true);
    }

    /// Cuts every connection, also every new one, when so many bytes have passed on it in that direction from now on.
    pub fn cut_each_after(&self, direction: Direction, bytes: u64) {
        self.plan(direction, bytes, false);
    }

    /// Takes back what [`cut_once_after`](Self::cut_once_after) or [`cut_each_after`](Self::cut_each_after) has
    /// planned.
    pub fn cut_no_more(&self) {
        self.shared.state.send_modify(|state| state.plan = None);
    }

    /// How many connections were cut by plan.
    pub fn cuts(&self) -> u64 {
        self.shared.cut.load(Ordering::Relaxed)
    }

    /// How many bytes have passed in that direction, on all connections.
    pub fn passed(&self, direction: Direction) -> u64 {
        self.shared.passed[direction as usize].load(Ordering::Relaxed)
    }

    /// In how many pieces they came, each sent by itself, or so late that the ones before had been read.
    pub fn pieces(&self, direction: Direction) -> u64 {
        self.shared.pieces[direction as usize].load(Ordering::Relaxed)
    }

    /// How often, on all connections, the server has answered what the client had sent.
    pub fn round_trips(&self) -> u64 {
        self.shared.round_trips.load(Ordering::Relaxed)
    }

    fn plan(&self, direction: Direction, bytes: u64, once: bool) {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        self.shared.state.send_modify(|state| state.plan = Some(Plan { number, direction, bytes, once }));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state.send_modify(|state| state.dropped = true);
    }
}

/// The state of the proxy's address.
enum Door {
    Open(TcpListener),
    Shut,
    Full { _listener: TcpListener, _waiting: Vec<TcpStream> },
}

impl Door {
    /// Makes what the mode asks for, unless this is it.
    async fn set(&mut self, mode: Mode, address: SocketAddr) -> io::Result<()> {
        match (mode, &*self) {
            (Mode::Refuse, _) => *self = Door::Shut,
            (Mode::Ignore, Door::Full { .. }) => {}
            (Mode::Ignore, _) => {
                *self = Door::Shut;
                *self = Door::full(address).await?;
            }
            (_, Door::Open(_)) => {}
            (_, _) => {
                *self = Door::Shut;
                *self = Door::Open(TcpListener::bind(address).await?);
            }
        }
        Ok(())
    }

    /// One whose queue of connections to be accepted is full: the system answers no further ones.
    async fn full(address: SocketAddr) -> io::Result<Door> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(0)?;
        let mut waiting = vec![];
        while let Ok(connected) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            waiting.push(connected?);
        }
        Ok(Door::Full { _listener: listener, _waiting: waiting })
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Door::Open(listener) => listener.accept().await,
            Door::Shut | Door::Full { .. } => std::future::pending().await,
        }
    }
}

async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let address = listener.local_addr().expect("it is bound");
    let mut door = TcpListener::from_std(listener).map_or(Door::Shut, Door::Open);
    let mut state = shared.state.subscribe();
    // Dropped with this, which cuts them.
    let mut connections = JoinSet::new();
    loop {
        let (mode, dropped) = {
            let state = state.borrow_and_update();
            (state.mode, state.dropped)
        };
        if dropped {
            return;
        }
        if door.set(mode, address).await.is_err() {
            // Somebody's outgoing connection has the port for a moment.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        }
        shared.accepting.send_replace(mode);
        tokio::select! {
            accepted = door.accept() => {
                let Ok((client, _)) = accepted else { continue };
                if state.borrow().mode == Mode::Reset {
                    reset(&client);
                } else {
                    connections.spawn(connection(client, shared.clone()));
                }
            }
            _ = state.changed() => {}
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Lets the connection be reset when it is dropped.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

async fn connection(mut client: TcpStream, shared: Arc<Shared>) {
    let mut state = shared.state.subscribe();
    let cuts = state.borrow().cuts;
    let mut cut = shared.state.subscribe();
    let through = async {
        let target = match state.wait_for(|state| state.mode != Mode::Stall).await {
            Ok(state) => state.target,
            Err(_) => return,
        };
        let Ok(mut server) = TcpStream::connect(target).await else {
            return reset(&client);
        };
        // Else what one side sends in small pieces would be slower than without a proxy.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ended = {
            let ((client_in, client_out), (server_in, server_out)) = (client.split(), server.split());
            // Whether the client has sent something that the server has not begun to answer.
            let asked = AtomicBool::new(false);
            tokio::try_join!(
                pump(client_in, server_out, Direction::ToServer, &shared, &asked),
                pump(server_in, client_out, Direction::ToClient, &shared, &asked),
            )
        };
        if ended.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset) {
            reset(&client);
            reset(&server);
        }
    };
    let is_cut = tokio::select! {
        biased;
        _ = cut.wait_for(|state| state.cuts != cuts) => true,
        () = through => false,
    };
    if is_cut {
        reset(&client);
    }
}

/// Passes on what comes until it ends, or the plan says so.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    shared: &Shared,
    asked: &AtomicBool,
) -> io::Result<()> {
    let mut state = shared.state.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    let mut counted = (None, 0);
    loop {
        let read = from.read(&mut buffer).await?;
        let (mode, plan) = {
            let state = state.wait_for(|state| state.mode != Mode::Stall).await;
            let state = state.map_err(|_| io::ErrorKind::BrokenPipe)?;
            (state.mode, state.plan)
        };
        if let Mode::Delay(delay) = mode {
            tokio::time::sleep(delay).await;
        }
        if read == 0 {
            return to.shutdown().await;
        }
        shared.pieces[direction as usize].fetch_add(1, Ordering::Relaxed);
        let mut piece = &buffer[..read];
        let mut last = false;
        if let Some(plan) = plan.filter(|plan| plan.direction == direction) {
            if counted.0 != Some(plan.number) {
                counted = (Some(plan.number), 0);
            }
            let left = plan.bytes - counted.1;
            if read as u64 >= left && shared.take(plan) {
                piece = &piece[..left as usize];
                last = true;
            }
            counted.1 += (piece.len() as u64).min(left);
        }
        match direction {
            Direction::ToServer => asked.store(true, Ordering::Relaxed),
            Direction::ToClient => {
                _ = shared
                    .round_trips
                    .fetch_add(asked.swap(false, Ordering::Relaxed).into(), Ordering::Relaxed);
            }
        }
        to.write_all(piece).await?;
        shared.passed[direction as usize].fetch_add(piece.len() as u64, Ordering::Relaxed);
        if last {
            shared.cut.fetch_add(1, Ordering::Relaxed);
            // Not a reset: the other side is to get what has passed.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
}

impl Shared {
    /// Whether the plan holds for whoever asks; one for a single cut holds once.
    fn take(&self, plan: Plan) -> bool {
        if !plan.once {
            return true;
        }
        self.state.send_if_modified(|state| {
            let is_there = state.plan == Some(plan);
            if is_there {
                state.plan = None;
            }
            is_there
        })
    }
}
