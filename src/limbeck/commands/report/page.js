// Draw every chart in the colours of the page, and again when these change.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const charts = [...document.querySelectorAll(".chart")].map((place) => ({
  place, spec: place.querySelector("script").textContent,
}));

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function config() {
  const [ink, soft, line] = ["--ink", "--soft", "--line"].map(colour);
  const font = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
  return {
    background: null,
    font,
    view: { stroke: null },
    axis: {
      labelColor: soft, titleColor: soft, labelFontSize: 11.5, titleFontSize: 12, titleFontWeight: 400, titlePadding: 10,
      gridColor: line, domainColor: line, tickColor: line, labelPadding: 6, tickSize: 4,
    },
    axisY: { domain: false, ticks: false },
    axisX: { grid: false },
    legend: { labelColor: soft, titleColor: soft, titleFontWeight: 400, labelFontSize: 11, titleFontSize: 12 },
    text: { color: ink },
  };
}

async function draw() {
  for (const { place, spec } of charts) {
    try {
      const shown = JSON.parse(spec.replaceAll("#f3efe9", colour("--blank")));
      await vegaEmbed(place, { ...shown, config: config() }, { actions: false, renderer: "svg" });
      place.dataset.drawn = "yes";
    } catch (error) {
      place.textContent = `This chart could not be drawn: ${error}`;
      console.error(error);
    }
  }
}

dark.addEventListener("change", draw);
draw();
