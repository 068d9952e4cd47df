import { render } from "preact";
import { App } from "./app";
import { handle } from "./handle";
import { openSource } from "./io/source";
import { Session } from "./model/session";
import "./theme.css";

const session = new Session(openSource());
handle.session = session;
render(<App session={session} />, document.getElementById("app")!);
void session.start();
window.addEventListener("beforeunload", () => session.leave());
window.addEventListener("hashchange", () => void session.follow());
