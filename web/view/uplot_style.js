// The styles of uPlot 1.6.32 that the charts need, below the root of the view. See
// web/vendor/uplot/ for the library and its licence.

export const UPLOT_STYLE = `
.nv-root .uplot, .nv-root .uplot *, .nv-root .uplot *::before, .nv-root .uplot *::after { box-sizing: border-box; }
.nv-root .uplot { line-height: 1.4; width: min-content; font: inherit; }
.nv-root .u-wrap { position: relative; user-select: none; }
.nv-root .u-over, .nv-root .u-under { position: absolute; }
.nv-root .u-under { overflow: hidden; }
.nv-root .uplot canvas { display: block; position: relative; width: 100%; height: 100%; }
.nv-root .u-axis { position: absolute; }
.nv-root .u-legend { font-size: 11px; margin: auto; text-align: center; border-spacing: 0; }
.nv-root .u-inline { display: block; }
.nv-root .u-inline * { display: inline-block; }
.nv-root .u-inline tr { margin-right: 12px; }
.nv-root .u-legend th { font-weight: 400; color: var(--nv-muted); }
.nv-root .u-legend th > * { vertical-align: middle; display: inline-block; }
.nv-root .u-legend .u-marker { width: 12px; height: 3px; margin-right: 4px; }
.nv-root .u-inline.u-live th::after { content: ":"; vertical-align: middle; }
.nv-root .u-inline:not(.u-live) .u-value { display: none; }
.nv-root .u-series > * { padding: 2px; }
.nv-root .u-legend .u-off > * { opacity: 0.3; }
.nv-root .u-select { background: rgba(0, 0, 0, 0.07); position: absolute; pointer-events: none; }
.nv-root .u-cursor-x, .nv-root .u-cursor-y { position: absolute; left: 0; top: 0; pointer-events: none; }
.nv-root .u-hz .u-cursor-x, .nv-root .u-vt .u-cursor-y { height: 100%; border-right: 1px dashed var(--nv-muted); }
.nv-root .u-hz .u-cursor-y, .nv-root .u-vt .u-cursor-x { width: 100%; border-bottom: 1px dashed var(--nv-muted); }
.nv-root .u-cursor-pt { position: absolute; top: 0; left: 0; border-radius: 50%; border: 0 solid; pointer-events: none; background-clip: padding-box !important; }
.nv-root .u-axis.u-off, .nv-root .u-select.u-off, .nv-root .u-cursor-x.u-off, .nv-root .u-cursor-y.u-off, .nv-root .u-cursor-pt.u-off { display: none; }
`;
