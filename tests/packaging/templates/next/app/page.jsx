import Embed from "./embed.jsx";

// Rendered on the server for each request, so that the client component and its imports are run there, too.
export const dynamic = "force-dynamic";

export default function Page() {
  return <Embed />;
}
