//! The thread that answers: it owns the stack's handle, takes requests from the HTTP app's workers, and samples the stack once
//! a second.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select, tick};
use hoststack::app::{AppWorkerId, AttachOptions, ListenOptions, Protocol, WorkerId};
use hoststack::{Answer, Query, StackHandle};
use hoststack_builtin::http::{HttpOptions, HttpServer, Reply, Request, Responder, Response};
use serde::Serialize;

use super::html::{self, Frame};
use super::metrics::{self, Format};
use super::overview::{self, FIRST_SESSIONS};
use super::samples::{Sample, Samples};
use super::sessions;
use super::source::{Source, Trouble};
use super::view::{Sort, View};
use crate::clock::Stopwatch;

/// The name of its application.
pub(crate) const APP: &str = "status";
/// How old an answer may be that is given again, in seconds: many browsers cost what one does.
const FRESH: f64 = 0.25;
/// Answers that are kept for that.
const KEPT_MAX: usize = 64;
/// Requests that may wait for the thread; one more is told to come back.
const WAITING_MAX: usize = 1024;
/// How often the stack is sampled.
const SAMPLED: Duration = Duration::from_secs(1);

/// Of all answers: nothing keeps them, nothing else is loaded or run, nobody frames them.
const FIELDS: &[(&str, &str)] = &[
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Vary", "Accept"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
];

/// The status server of a running stack. Dropped once its app is detached, it waits for its thread.
#[derive(Debug)]
pub(crate) struct StatusServer {
    /// Where it listens, as a browser wants it where one can get there.
    addresses: Vec<String>,
    thread: Option<JoinHandle<()>>,
    /// Dropped, it ends the thread even while the app is attached.
    stop: Option<Sender<()>>,
}

impl StatusServer {
    /// Attaches the app, listens, and begins to answer. `is_public` answers whatever name it is called by.
    ///
    /// # Errors
    /// What is wrong with a place, or the thread cannot be started.
    pub(crate) fn start(
        stack: &StackHandle,
        places: Vec<ListenOptions>,
        is_public: bool,
    ) -> Result<StatusServer, Box<dyn std::error::Error>> {
        let (requests, asked) = bounded(WAITING_MAX);
        let (stop, stopped) = bounded(0);
        let (source, cores) = (Source::new(stack.clone()), stack.clone());
        let thread = Builder::new()
            .name(APP.to_owned())
            .spawn(move || {
                cores.keep_off_workers();
                serve(Site::new(source, is_public), &asked, &stopped);
            })
            .map_err(|error: io::Error| format!("no thread for it: {error}"))?;
        let mut server = StatusServer { addresses: Vec::new(), thread: Some(thread), stop: Some(stop) };
        let answering = stack.clone();
        let post = move |app_worker: AppWorkerId, worker: WorkerId, message| {
            // A stack that has stopped has no session to answer on.
            let _ = answering.notify(app_worker, worker, message);
        };
        let app = HttpServer::new(Vec::new(), HttpOptions::default(), Desk { requests }, post);
        let attached = stack.attach(app, AttachOptions::named(APP))?;
        let app_worker = attached.app_workers[0];
        for options in places {
            let place = options.local.clone();
            stack.listen(app_worker, options).map_err(|error| format!("{place}: {error}"))?;
        }
        // Of port 0 the host has made another.
        let apps = stack.inspect(Query::Status)?.apps;
        let own = apps.iter().filter(|app| app.id == attached.app).flat_map(|app| &app.app_workers);
        server.addresses = own.flat_map(|worker| &worker.listeners).map(|place| browsable(place)).collect();
        Ok(server)
    }

    /// Where it listens, as a browser wants it where one can get there.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }
}

/// A listener's place; of a socket of the host what to type into a browser there.
fn browsable(place: &str) -> String {
    match place.strip_prefix("kernel+tcp://") {
        Some(at) => format!("http://{at}/"),
        None => place.to_owned(),
    }
}

impl Drop for StatusServer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was printed when it happened; there is nothing to add.
            let _ = thread.join();
        }
    }
}

/// Where the workers leave requests.
struct Desk {
    requests: Sender<(Request, Reply)>,
}

impl Responder for Desk {
    fn respond(&self, request: Request, reply: Reply) {
        if let Err(TrySendError::Full((_, reply)) | TrySendError::Disconnected((_, reply))) =
            self.requests.try_send((request, reply))
        {
            reply.send(plain(503, "too much is asked at once: come back in a second\n"));
        }
    }
}

fn serve(mut site: Site, asked: &Receiver<(Request, Reply)>, stopped: &Receiver<()>) {
    let seconds = tick(SAMPLED);
    site.sample();
    loop {
        select! {
            recv(asked) -> request => match request {
                Ok((request, reply)) => reply.send(site.answer(&request)),
                // The app is gone, and with it everyone who asks.
                Err(_) => return,
            },
            recv(seconds) -> _ => site.sample(),
            recv(stopped) -> _ => return,
        }
    }
}

/// What is answered.
struct Site {
    source: Source,
    is_public: bool,
    watch: Stopwatch,
    samples: Samples,
    /// The last samples' answers, for the workers' rates: the one before the last, and the last.
    before: Option<(f64, Answer)>,
    last: Option<(f64, Answer)>,
    /// Answers by form, path and query, with the second of their making.
    kept: BTreeMap<String, (f64, Response)>,
}

fn plain(status: u16, text: &str) -> Response {
    Response { fields: FIELDS, ..Response::plain(status, text) }
}

fn of(content_type: &'static str, text: String) -> Response {
    Response { status: 200, content_type, fields: FIELDS, body: text.into_bytes().into() }
}

/// The JSON of a page.
#[derive(Serialize)]
struct Json<'a> {
    /// The page, as text.
    view: &'a View,
    /// What it was made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a Answer>,
}

fn json(view: &View, answer: Option<&Answer>) -> Response {
    let text = serde_json::to_string(&Json { view, answer });
    let text = text.expect("cannot fail because every key is a string and no write can fail");
    of("application/json", text + "\n")
}

const HTML: &str = "text/html; charset=utf-8";

impl Site {
    fn new(source: Source, is_public: bool) -> Site {
        Site {
            source,
            is_public,
            watch: Stopwatch::start(),
            samples: Samples::default(),
            before: None,
            last: None,
            kept: BTreeMap::new(),
        }
    }

    fn sample(&mut self) {
        let answer = self.source.figures().ok();
        let at = self.watch.seconds();
        self.samples.push(answer.as_ref().map(|answer| Sample::of(answer, at)));
        if let Some(answer) = answer {
            self.before = self.last.replace((at, answer));
        }
    }

    fn answer(&mut self, request: &Request) -> Response {
        // A page elsewhere could have its own name resolved to our address, and read what its visitor's browser may.
        if !self.is_public
            && matches!(request.protocol, Protocol::Tcp | Protocol::KernelTcp)
            && !is_own_name(&request.host)
        {
            let why =
                "call it by its address or as localhost; with `public = true` in [status] any name will do\n";
            return plain(421, why);
        }
        let key = format!("{:?} {}?{}", Format::accepted(&request.accept), request.path, request.query);
        if let Some((at, response)) = self.kept.get(&key)
            && self.watch.seconds() - at < FRESH
        {
            return response.clone();
        }
        let response = self.make(request).unwrap_or_else(|trouble| plain(503, trouble.text()));
        if self.kept.len() >= KEPT_MAX {
            self.kept.clear();
        }
        self.kept.insert(key, (self.watch.seconds(), response.clone()));
        response
    }

    fn make(&mut self, request: &Request) -> Result<Response, Trouble> {
        let sort = request.query_value("sort").and_then(|text| Sort::parse(&text));
        let frame =
            Frame { path: &request.path, query: &request.query, sort: sort.as_ref(), ..Frame::default() };
        let sorted = |mut view: View| {
            if let Some(sort) = &sort {
                sort.apply(&mut view);
            }
            view
        };
        Ok(match request.path.as_str() {
            "/" => {
                let (view, _) = self.overview()?;
                of(HTML, html::page(&sorted(view), &Frame { json: Some("/status.json"), ..frame }))
            }
            "/status.json" => {
                let (view, answer) = self.overview()?;
                json(&sorted(view), Some(&answer))
            }
            "/sessions" => {
                let filter = request.query_value("filter").unwrap_or_default();
                let after = request.query_value("after").and_then(|text| text.parse().ok());
                let is_first = after.is_none();
                let (view, lead) = match self.source.sessions(&filter, after)? {
                    Ok(page) => {
                        (sessions::list(&page), sessions::list_lead(&filter, None, is_first, page.next))
                    }
                    Err(why) => (sessions::refused(), sessions::list_lead(&filter, Some(&why), true, None)),
                };
                of(HTML, html::page(&sorted(view), &Frame { lead: &lead, ..frame }))
            }
            "/metrics" => {
                let (answer, channels) = (self.source.totals()?, self.source.channels()?);
                let text = metrics::openmetrics(answer, channels);
                let format = Format::accepted(&request.accept);
                of(
                    format.content_type(),
                    match format {
                        Format::OpenMetrics => text,
                        Format::Text => metrics::in_text_format(&text),
                    },
                )
            }
            "/healthz" => {
                self.source.figures()?;
                plain(200, "ok\n")
            }
            "/page.css" => of("text/css; charset=utf-8", html::STYLE.to_owned()),
            "/page.js" => of("text/javascript; charset=utf-8", html::SCRIPT.to_owned()),
            path => match path.strip_prefix("/session/") {
                Some(rest) => {
                    let (handle, is_json) =
                        rest.strip_suffix(".json").map_or((rest, false), |name| (name, true));
                    let Some(session) = self.source.session(handle)? else {
                        let lead = "<p class=\"empty\">It has ended, or never was.</p>";
                        let view = View { title: "No such session".to_owned(), ..View::default() };
                        return Ok(Response {
                            status: 404,
                            ..of(HTML, html::page(&view, &Frame { lead, ..frame }))
                        });
                    };
                    let view = sorted(sessions::detail(&session));
                    if is_json {
                        return Ok(json(&view, None));
                    }
                    let own = format!("/session/{}.json", html::percent_encoded(handle));
                    of(HTML, html::page(&view, &Frame { json: Some(&own), ..frame }))
                }
                None => plain(
                    404,
                    "there is /, /sessions, /session/HANDLE, /status.json, /metrics and /healthz\n",
                ),
            },
        })
    }

    fn overview(&mut self) -> Result<(View, Answer), Trouble> {
        let answer = self.source.overview(FIRST_SESSIONS)?;
        let at = self.watch.seconds();
        // A span of a second at least: of a shorter one a rate would be noise.
        let before = self.last.as_ref().filter(|(then, _)| at - then >= 1.0).or(self.before.as_ref());
        Ok((overview::view(&answer, before, at, &self.samples), answer))
    }
}

/// Whether a `Host` names this very host: an address, `localhost`, or nothing at all.
fn is_own_name(host: &str) -> bool {
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.is_empty() || name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_own_names() {
        for own in ["127.0.0.1:9900", "127.0.0.1", "[::1]:9900", "[::1]", "localhost:80", "LOCALHOST", ""] {
            assert!(is_own_name(own), "{own}");
        }
        for other in
            ["evil.example", "evil.example:9900", "127.0.0.1.evil.example", "localhost.evil.example:80"]
        {
            assert!(!is_own_name(other), "{other}");
        }
    }
}
